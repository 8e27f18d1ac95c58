"""A tokenizer without a file: one id a byte. The simulated engine speaks it."""

import re

# Ids 0 … 255 are bytes, these follow.
END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIALS = (END_OF_TEXT, TURN_START, TURN_END)
NUM_BYTES = 256
VOCAB_SIZE = 512

_SPECIAL_IDS = {text: NUM_BYTES + index for index, text in enumerate(SPECIALS)}
_SPLIT_AT_SPECIALS = re.compile(f"({'|'.join(map(re.escape, SPECIALS))})")


class ByteTokenizer:
    """Implements `Tokenizer`. Writes no BOS.

    Ids beyond the vocabulary are taken for the simulated engine's audit ids: the text of one is its lowest byte.
    """

    @property
    def vocab_size(self) -> int:
        """Ids that a prompt may hold."""
        return VOCAB_SIZE

    @property
    def special_ids(self) -> frozenset[int]:
        """End of text and the marks of a turn."""
        return frozenset(_SPECIAL_IDS.values())

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """UTF-8 bytes; the text of a special token is that token. A lone surrogate becomes a question mark."""
        ids: list[int] = []
        for piece in _SPLIT_AT_SPECIALS.split(text):
            special = _SPECIAL_IDS.get(piece)
            ids.extend([special] if special is not None else piece.encode("utf-8", "replace"))
        return ids

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        """The byte, the special token's text, or nothing for the ids that mean nothing."""
        if token_id < NUM_BYTES or token_id >= VOCAB_SIZE:
            return bytes([token_id & 0xFF])
        index = token_id - NUM_BYTES
        return SPECIALS[index].encode() if index < len(SPECIALS) and not skip_special else b""
