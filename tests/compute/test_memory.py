"""Which errors mean that memory ran out, and what is said then."""

import pytest
import torch

from compute.memory import first_line, is_out_of_memory, out_of_memory_advice


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_kinds_of_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_allocator_of_the_cpu() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert first_line(MemoryError()) == "MemoryError"
    assert first_line(RuntimeError("one\ntwo")) == "one"
    assert "(MemoryError). Set ACTIVATION_CHECKPOINTING, or lower BATCH_SIZE" in out_of_memory_advice(MemoryError())
