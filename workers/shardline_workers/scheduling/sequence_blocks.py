"""Gives sequences their blocks: finds cached prefixes, takes free blocks, publishes what was computed, frees it."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, islice

from shardline_workers.scheduling.block_pool import BlockPool
from shardline_workers.scheduling.prefix_index import PrefixIndex, block_hash, root_hash
from shardline_workers.scheduling.request import SequenceState


class SequenceBlocks:
    """Block pool and prefix index together, in terms of sequences."""

    def __init__(self, *, num_blocks: int, block_size: int) -> None:
        if block_size < 1:
            raise ValueError(f"block size {block_size}; it needs at least 1 token")
        self.block_size = block_size
        self._pool = BlockPool(num_blocks)
        self._index = PrefixIndex()

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        return self._pool.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens need."""
        return -(-num_tokens // self.block_size)

    def num_cached_tokens(self, token_ids: Sequence[int], *, salt: str) -> int:
        """Tokens of the longest cached prefix, in full blocks."""
        size = self.block_size
        starts = range(0, len(token_ids) - size + 1, size)
        hashes = accumulate((token_ids[start : start + size] for start in starts), block_hash, initial=root_hash(salt))
        return len(self._index.find(islice(hashes, 1, None))) * size

    def admit(self, sequence: SequenceState, headroom: int) -> bool:
        """Gives a waiting sequence blocks for all of its known tokens, cached ones first; computed tokens are set.

        Args:
            sequence: holds no block yet.
            headroom: blocks that must stay free afterwards.

        Returns:
            False, with nothing changed, where there are too few free blocks.
        """
        cached = self._index.find(self._hashes(sequence, self._sharable_blocks(sequence)))
        num_new = self.blocks_for(len(sequence.token_ids)) - len(cached)
        num_revived = sum(self._pool.is_free(block_id) for block_id in cached)
        if num_new + num_revived + headroom > self._pool.num_free:
            return False
        for block_id in cached:
            self._pool.share(block_id)
        sequence.block_ids = cached + [self._take() for _ in range(num_new)]
        sequence.num_published = len(cached)
        sequence.num_computed = len(cached) * self.block_size
        return True

    def has_room(self, sequence: SequenceState) -> bool:
        """Whether the next token to be computed has a block already."""
        return sequence.num_computed < len(sequence.block_ids) * self.block_size

    def grow(self, sequence: SequenceState) -> None:
        """Adds one block.

        Raises:
            OutOfBlocksError: none is free.
        """
        sequence.block_ids.append(self._take())

    def publish(self, sequence: SequenceState) -> None:
        """Tells the prefix index of the blocks that have become full and computed."""
        num_full = sequence.num_computed // self.block_size
        if num_full == sequence.num_published:
            return
        hashes = self._hashes(sequence, num_full)
        for number in range(sequence.num_published, num_full):
            self._index.publish(hashes[number], sequence.block_ids[number])
        sequence.num_published = num_full

    def release(self, sequence: SequenceState) -> None:
        """Frees all blocks of a sequence. Its last ones are the first to be overwritten: prefixes live longer."""
        for block_id in reversed(sequence.block_ids):
            self._pool.release(block_id)
        sequence.block_ids = []
        sequence.num_published = 0
        sequence.num_computed = 0
        sequence.num_told_blocks = 0

    def disown(self, sequence: SequenceState) -> None:
        """Frees all blocks and makes sure that nobody finds their content any more: it may be poisoned by a NaN."""
        for block_id in sequence.block_ids:
            self._index.forget(block_id)
        self.release(sequence)

    def check_integrity(self, sequences: Iterable[SequenceState]) -> None:
        """Raises AssertionError where the books differ from what `sequences`, all that are alive, hold."""
        self._pool.check_integrity(block_id for sequence in sequences for block_id in sequence.block_ids)
        self._index.check_integrity()

    def _sharable_blocks(self, sequence: SequenceState) -> int:
        # At least one token must be computed, or there were no logits to choose the next one from; and from the first
        # one on whose logits are wanted, all must be.
        unscored = sequence.unscored(0, len(sequence.token_ids) - 1)
        return (unscored.start if unscored else len(sequence.token_ids) - 1) // self.block_size

    def _hashes(self, sequence: SequenceState, num_blocks: int) -> list[bytes]:
        hashes = sequence.block_hashes
        while len(hashes) < num_blocks:
            start = len(hashes) * self.block_size
            parent = hashes[-1] if hashes else root_hash(sequence.salt)
            hashes.append(block_hash(parent, sequence.token_ids[start : start + self.block_size]))
        return hashes[:num_blocks]

    def _take(self) -> int:
        block_id = self._pool.take()
        self._index.forget(block_id)
        return block_id
