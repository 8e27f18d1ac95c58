"""Changes to bytes that break readers most often: numbers at their edges, cuts, doubled and swapped parts."""

from collections.abc import Callable
from random import Random

# Where counts, lengths and offsets go wrong: around zero, powers of two, and the ends of each width.
EDGE_NUMBERS = tuple(
    sorted(
        {0, 1, 2, 3, 7, 8, 31, 32, 33, 255, 256, 65_535, 65_536, 1_000_000, 100_000_000}
        | {1 << bits for bits in (16, 20, 24, 28, 31, 32, 40, 47, 48, 52, 62, 63)}
        | {(1 << bits) - 1 for bits in (16, 20, 24, 31, 32, 40, 48, 53, 63, 64)}
        | {(1 << 64) - 32, (1 << 64) - 8, (1 << 32) - 8}
    )
)

Edit = Callable[[Random, bytearray], None]


def mutated(random: Random, content: bytes, *, most_edits: int = 4) -> bytes:
    """The same bytes after a few random edits."""
    changed = bytearray(content)
    for _ in range(random.randint(1, most_edits)):
        random.choice(_EDITS)(random, changed)
    return bytes(changed)


def _place(random: Random, content: bytearray) -> int:
    return random.randrange(len(content)) if content else 0


def _span(random: Random, content: bytearray) -> tuple[int, int]:
    start = _place(random, content)
    return start, min(len(content), start + random.choice((1, 2, 4, 8, 16, 64, 256)))


def _flip_bit(random: Random, content: bytearray) -> None:
    if content:
        content[_place(random, content)] ^= 1 << random.randrange(8)


def _set_byte(random: Random, content: bytearray) -> None:
    if content:
        content[_place(random, content)] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))


def _set_number(random: Random, content: bytearray) -> None:
    start, width = _place(random, content), random.choice((2, 4, 8))
    number = random.choice(EDGE_NUMBERS) % (1 << 8 * width)
    content[start : start + width] = number.to_bytes(width, "little")


def _insert(random: Random, content: bytearray) -> None:
    start = _place(random, content)
    content[start:start] = random.randbytes(random.choice((1, 2, 4, 8, 32)))


def _delete(random: Random, content: bytearray) -> None:
    start, stop = _span(random, content)
    del content[start:stop]


def _double(random: Random, content: bytearray) -> None:
    start, stop = _span(random, content)
    content[stop:stop] = content[start:stop]


def _move(random: Random, content: bytearray) -> None:
    start, stop = _span(random, content)
    part = content[start:stop]
    del content[start:stop]
    place = _place(random, content)
    content[place:place] = part


def _cut(random: Random, content: bytearray) -> None:
    del content[_place(random, content) :]


_EDITS: tuple[Edit, ...] = (_flip_bit, _set_byte, _set_number, _insert, _delete, _double, _move, _cut)
