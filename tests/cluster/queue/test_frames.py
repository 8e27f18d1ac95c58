"""Packed values are read back in order, and a frame that ends too early is an error."""

import struct

import pytest

from shardline_cluster.queue.frames import FrameReader, pack_bytes, pack_text, pack_u32, pack_u64


def test_values_are_read_back_in_order() -> None:
    packed = pack_u32(7) + pack_u64(2**53) + pack_text("smöll") + pack_bytes(b"\x00\xff") + pack_u32(1) + pack_u32(2)
    reader = FrameReader(packed)

    values = (reader.u32(), reader.u64(), reader.text(), reader.bytes(), reader.u32s(2))

    assert values == (7, 2**53, "smöll", b"\x00\xff", (1, 2))


@pytest.mark.parametrize("packed", [b"\x01", pack_u32(5) + b"abc"])
def test_a_frame_that_ends_too_early_is_an_error(packed: bytes) -> None:
    with pytest.raises(struct.error):
        FrameReader(packed).bytes()
