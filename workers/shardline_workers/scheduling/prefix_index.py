"""Which cached block holds which prefix: block hashes are chained, so that one hash names a block and all before it.

    hash(block 0) = H(root(salt), tokens of block 0)
    hash(block 1) = H(hash(block 0), tokens of block 1)

Hashes are the same in every process and on every machine: routers and other replicas may compare them.
"""

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b

HASH_BYTES = 16  # 128 bits: two prefixes with one hash are not to be expected in the life of a cluster


def root_hash(salt: str) -> bytes:
    """Parent of a first block. Different salts never share a block."""
    return blake2b(salt.encode(), digest_size=HASH_BYTES, person=b"shardline-root").digest()


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Hash of a full block after `parent`."""
    packed = struct.pack(f"<{len(token_ids)}I", *token_ids)
    return blake2b(parent + packed, digest_size=HASH_BYTES).digest()


class PrefixIndex:
    """Two-way map between hashes and the blocks that hold their content."""

    def __init__(self) -> None:
        self._hash_to_block: dict[bytes, int] = {}
        self._block_to_hash: dict[int, bytes] = {}

    def publish(self, digest: bytes, block_id: int) -> None:
        """Says that a block holds this prefix. The first block with a hash keeps it; a second copy is not indexed."""
        if digest not in self._hash_to_block:
            self.forget(block_id)
            self._hash_to_block[digest] = block_id
            self._block_to_hash[block_id] = digest

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """Blocks of the longest known run of leading hashes."""
        block_ids: list[int] = []
        for digest in digests:
            block_id = self._hash_to_block.get(digest)
            if block_id is None:
                break
            block_ids.append(block_id)
        return block_ids

    def forget(self, block_id: int) -> None:
        """The block gets another content. One that is not indexed is ignored."""
        digest = self._block_to_hash.pop(block_id, None)
        if digest is not None:
            del self._hash_to_block[digest]

    def check_integrity(self) -> None:
        """Raises AssertionError where the two directions differ."""
        mirrored = {block_id: digest for digest, block_id in self._hash_to_block.items()}
        assert mirrored == self._block_to_hash, "the two directions of the prefix index differ"
