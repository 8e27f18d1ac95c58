"""What everybody needs of a tokenizer, whichever file it came from."""

from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids and back. Thread-safe; `encode` may be slow on long texts and is run off the event loop."""

    @property
    def vocab_size(self) -> int:
        """Ids are 0 … vocab_size - 1."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that stand for no text (BOS, end of turn …)."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`; BOS exactly once where the model wants one and `add_special_tokens` is set."""
        ...

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        """The bytes that one token adds to the output: maybe half a character. Empty for a skipped special token."""
        ...
