"""Who holds which block of the KV cache: reference counts and a queue of free blocks. It knows no tokens.

A free block keeps its content until it is taken again, so that a prefix that comes back soon finds it. The queue of
free blocks is in order of least recent use:

    taken from here ◀── [ 7 | 2 | 9 | 4 ] ◀── released to here
"""

from collections import Counter
from collections.abc import Iterable


class OutOfBlocksError(RuntimeError):
    """A block was taken from an empty pool: the caller should have looked at `num_free`."""


class BlockPool:
    """Blocks 0 … num_blocks - 1, each free or held by one or more sequences."""

    def __init__(self, num_blocks: int) -> None:
        if num_blocks < 1:
            raise ValueError(f"a block pool of {num_blocks} blocks; it needs at least 1")
        self.num_blocks = num_blocks
        self._ref_counts = [0] * num_blocks
        self._free: dict[int, None] = dict.fromkeys(range(num_blocks))  # insertion order is the queue's order

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds, cached ones included."""
        return len(self._free)

    def is_free(self, block_id: int) -> bool:
        """Whether nobody holds the block."""
        return block_id in self._free

    def take(self) -> int:
        """Takes the least recently used free block; its old content is lost.

        Raises:
            OutOfBlocksError: none is free.
        """
        if not self._free:
            raise OutOfBlocksError(f"all {self.num_blocks} KV blocks are held")
        block_id = next(iter(self._free))
        self.share(block_id)
        return block_id

    def share(self, block_id: int) -> None:
        """Holds a block once more, content kept."""
        self._free.pop(block_id, None)
        self._ref_counts[block_id] += 1

    def release(self, block_id: int) -> None:
        """Gives up one hold; the last one puts the block at the end of the free queue."""
        assert self._ref_counts[block_id] > 0, f"block {block_id} was released more often than held"
        self._ref_counts[block_id] -= 1
        if self._ref_counts[block_id] == 0:
            self._free[block_id] = None

    def check_integrity(self, held: Iterable[int]) -> None:
        """Compares the books with `held`, the blocks of all sequences together, a shared one as often as it is shared.

        Raises:
            AssertionError: a block is leaked, freed while held, or counted wrongly.
        """
        holds = Counter(held)
        for block_id, count in enumerate(self._ref_counts):
            assert count == holds[block_id], (
                f"block {block_id} counts {count} holds, but sequences hold it {holds[block_id]} times"
            )
            assert (count == 0) == (block_id in self._free), (
                f"block {block_id} has {count} holds and is in the wrong queue"
            )
        assert len(self._free) + sum(count > 0 for count in self._ref_counts) == self.num_blocks, "blocks went missing"
