"""Packed values as the scripts read and write them: little-endian integers, and texts that tell their length first.

One fat argument costs the client and the server far less than many thin ones.
"""

import struct

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


def pack_u32(value: int) -> bytes:
    """4 bytes."""
    return _U32.pack(value)


def pack_u64(value: int) -> bytes:
    """8 bytes; Lua's numbers hold up to 2⁵³ of them exactly."""
    return _U64.pack(value)


def pack_bytes(value: bytes) -> bytes:
    """Length, then the bytes."""
    return _U32.pack(len(value)) + value


def pack_text(value: str) -> bytes:
    """Length in bytes, then UTF-8."""
    return pack_bytes(value.encode())


class FrameReader:
    """Reads packed values one after the other.

    What ends too early raises struct.error: the script and this module are of two versions.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._at = 0

    def u32(self) -> int:
        """An unsigned integer of 4 bytes."""
        (value,) = _U32.unpack_from(self._packed, self._at)
        self._at += _U32.size
        return int(value)

    def u64(self) -> int:
        """An unsigned integer of 8 bytes."""
        (value,) = _U64.unpack_from(self._packed, self._at)
        self._at += _U64.size
        return int(value)

    def u32s(self, count: int) -> tuple[int, ...]:
        """So many integers of 4 bytes."""
        values = struct.unpack_from(f"<{count}I", self._packed, self._at)
        self._at += count * _U32.size
        return values

    def raw(self, size: int) -> bytes:
        """So many bytes."""
        value = self._packed[self._at : self._at + size]
        if len(value) != size:
            raise struct.error(f"{size} bytes were to come, but only {len(value)} are left")
        self._at += size
        return value

    def bytes(self) -> bytes:
        """Bytes that tell their length."""
        return self.raw(self.u32())

    def text(self) -> str:
        """A text that tells its length."""
        return self.bytes().decode()
