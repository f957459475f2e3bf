"""CRC-32C as event files use it, fast enough for videos.

TensorBoard's own Python function walks byte by byte and holds the interpreter lock meanwhile: about 12 ms for a
100 kB clip. A CRC is linear, so long data is cut into lanes that numpy walks side by side, and the lanes are joined
afterwards. Polynomial and masking: TensorFlow's TFRecord format ("masked CRC-32C"); RFC 3720, appendix B.4.
"""

import numpy

_POLYNOMIAL = 0x82F63B78  # reflected Castagnoli polynomial
_LANE_BYTES = 256
_LONG = 16 * _LANE_BYTES  # below this, walking byte by byte is quicker


def _byte_table() -> numpy.ndarray:
    table = numpy.arange(256, dtype=numpy.uint32)
    for _ in range(8):
        table = numpy.where(table & 1, (table >> 1) ^ _POLYNOMIAL, table >> 1).astype(numpy.uint32)
    return table


def _after_zero_bytes(states: numpy.ndarray, count: int) -> numpy.ndarray:
    for _ in range(count):
        states = _TABLE[states & 0xFF] ^ (states >> 8)
    return states


_TABLE = _byte_table()
_PYTHON_TABLE: list[int] = _TABLE.tolist()
_PAIR_TABLE = _after_zero_bytes(numpy.arange(65536, dtype=numpy.uint32), 2)  # two bytes at a time
# What a lane of zeros does to each byte of the state; linearity makes any state the XOR of four entries.
_SKIP_LANE: list[list[int]] = [
    _after_zero_bytes(numpy.arange(256, dtype=numpy.uint32) << shift, _LANE_BYTES).tolist() for shift in (0, 8, 16, 24)
]


def masked_checksum(data: bytes) -> int:
    """Return the masked CRC-32C of ``data`` that follows a length or a payload in an event file."""
    state, rest = 0xFFFFFFFF, data
    if len(data) >= _LONG:
        whole = len(data) - len(data) % _LANE_BYTES
        state, rest = _walk_lanes(data[:whole]), data[whole:]
    for byte in rest:
        state = _PYTHON_TABLE[(state ^ byte) & 0xFF] ^ (state >> 8)
    checksum = state ^ 0xFFFFFFFF
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _walk_lanes(data: bytes) -> int:
    """Return the CRC register after ``data``, whose length is a multiple of the lane length."""
    lanes = numpy.frombuffer(data, dtype="<u2").reshape(-1, _LANE_BYTES // 2)
    states = numpy.zeros(len(lanes), dtype=numpy.uint32)
    states[0] = 0xFFFFFFFF
    for pairs in numpy.ascontiguousarray(lanes.T):
        states = _PAIR_TABLE[(states ^ pairs) & 0xFFFF] ^ (states >> 16)
    first, second, third, fourth = _SKIP_LANE
    state = 0
    for lane in states.tolist():
        state = first[state & 0xFF] ^ second[state >> 8 & 0xFF] ^ third[state >> 16 & 0xFF] ^ fourth[state >> 24] ^ lane
    return state
