"""A model in parts: three processes with gloo between them agree with one that has all of it.

Each test lets processes run a check of sharded_checks.py or another file of checks.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from tests.reliability.launch import end_all, launch

pytestmark = pytest.mark.distributed

WORLD_SIZE = 3


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    end_all()


def run_check(
    name: str, folder: Path, *, world_size: int = WORLD_SIZE, program: str = "checkpoints.sharded_checks"
) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": world_size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": 0,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    launched = [
        launch(
            folder,
            name,
            str(folder),
            program=f"tests.{program}",
            environment={key: str(value) for key, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()},
        )
        for rank in range(world_size)
    ]
    ends = [each.end() for each in launched]
    assert ends == [0] * world_size, "\n".join(each.said for each in launched)


@pytest.mark.slow
def test_the_main_process_gathers_the_very_tensors(tmp_path: Path) -> None:
    run_check("gathering", tmp_path)


@pytest.mark.slow
def test_a_process_reads_its_rows_from_parts_and_from_whole_files(tmp_path: Path) -> None:
    run_check("reading", tmp_path)


def test_weights_moments_and_average_move_as_with_one_process(tmp_path: Path) -> None:
    run_check("training", tmp_path)


def test_a_process_holds_its_part_and_the_main_one_copies_for_a_look(tmp_path: Path) -> None:
    run_check("memory", tmp_path)


def test_parts_are_saved_by_all_or_by_none_and_restored(tmp_path: Path) -> None:
    run_check("saving", tmp_path)


def test_a_process_without_any_rows_has_a_file_too(tmp_path: Path) -> None:
    run_check("saving_without_rows", tmp_path, world_size=4, program="checkpoints.sharded_saver_checks")


def test_each_process_hashes_its_own_file_and_one_that_cannot_stops_all(tmp_path: Path) -> None:
    run_check("hashing", tmp_path, world_size=2, program="checkpoints.sharded_saver_checks")


def test_a_whole_that_the_main_process_has_no_room_for_is_not_gathered(tmp_path: Path) -> None:
    run_check("no_room", tmp_path, world_size=2, program="checkpoints.sharded_saver_checks")


def test_scaled_gradients_in_parts_train_as_unscaled_ones_and_overflow_on_all(tmp_path: Path) -> None:
    run_check("loss_scale", tmp_path, world_size=2, program="training.sharded_step_checks")


def test_processes_with_one_clip_more_or_less_train_what_one_trains(tmp_path: Path) -> None:
    run_check("uneven", tmp_path, world_size=2, program="training.sharded_step_checks")


def test_weights_in_parts_are_cast_together_as_on_cuda(tmp_path: Path) -> None:
    run_check("casting", tmp_path, world_size=2, program="training.sharded_step_checks")
