import numpy
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from logging_system.files.append_log import AppendLog, masked_checksum


def test_torn_write_is_repeated_at_the_same_place(tmp_path, disk):
    path = tmp_path / "log"
    log = AppendLog(path, open_file=disk.open)
    log.append(b"first ")
    log.flush()
    disk.is_full, disk.bytes_left = True, 3
    log.append(b"second ")
    with pytest.raises(OSError, match="No space"):
        log.flush()
    assert path.read_bytes() == b"first sec"
    log.append(b"third")
    disk.is_full = False
    log.flush()
    assert path.read_bytes() == b"first second third"
    assert log.waiting_bytes == 0


def test_memory_is_bounded_while_the_disk_is_full(tmp_path, disk):
    log = AppendLog(tmp_path / "log", limit=10, open_file=disk.open)
    disk.is_full = True
    log.append(b"12345678")
    with pytest.raises(OSError, match="No space"):
        log.append(b"abcd")
    log.append(b"efgh")
    assert (log.dropped, log.waiting_bytes) == (2, 8)
    disk.is_full = False
    log.flush()
    log.append(b"ijkl")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"12345678ijkl"


def test_many_pieces_are_flushed_early(tmp_path):
    log = AppendLog(tmp_path / "log", limit=10)
    log.append(b"123456")
    log.append(b"abcdef")
    assert (tmp_path / "log").read_bytes() == b"123456"
    log.close()
    assert (tmp_path / "log").read_bytes() == b"123456abcdef"


def test_existing_content_is_continued(tmp_path):
    (tmp_path / "log").write_bytes(b"old ")
    log = AppendLog(tmp_path / "log")
    log.append(b"new")
    log.close()
    log.close()
    assert (tmp_path / "log").read_bytes() == b"old new"


@pytest.mark.parametrize("length", [0, 1, 12, 255, 4095, 4096, 4097, 4351, 4352, 20_000])
def test_checksum_agrees_with_tensorboard(length):
    data = numpy.random.default_rng(length).integers(0, 256, length, dtype=numpy.uint8).tobytes()
    assert masked_checksum(data) == masked_crc32c(data)


def test_checksum_of_a_known_value():
    # RFC 3720, appendix B.4: 32 bytes of zeros have the CRC-32C 0x8A9136AA.
    crc = 0x8A9136AA
    assert masked_checksum(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
