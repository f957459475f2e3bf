import numpy
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from logging_system.files.append_log import masked_checksum


@pytest.mark.parametrize("length", [0, 1, 12, 255, 4095, 4096, 4097, 4351, 4352, 20_000])
def test_agrees_with_tensorboard(length):
    data = numpy.random.default_rng(length).integers(0, 256, length, dtype=numpy.uint8).tobytes()
    assert masked_checksum(data) == masked_crc32c(data)


def test_known_value():
    # RFC 3720, appendix B.4: 32 bytes of zeros have the CRC-32C 0x8A9136AA.
    crc = 0x8A9136AA
    assert masked_checksum(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
