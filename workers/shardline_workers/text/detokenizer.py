"""Token ids to text, piece by piece, never half a character."""

import codecs
from collections.abc import Iterable

from shardline_workers.text.tokenizer import Tokenizer


class Detokenizer:
    """The text of one sequence as its tokens come.

    What was given out so far is a pure function of the ids fed so far, however they were cut into calls.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token_ids: Iterable[int]) -> str:
        """The characters that these tokens complete. Bytes that can never become one are U+FFFD."""
        pieces = [self._tokenizer.token_bytes(token_id, skip_special=self._skip_special) for token_id in token_ids]
        return self._decoder.decode(b"".join(pieces))

    def flush(self) -> str:
        """What is left at the end: nothing, or U+FFFD for a character whose rest never came."""
        return self._decoder.decode(b"", final=True)


def text_of(tokenizer: Tokenizer, token_ids: Iterable[int], *, skip_special: bool) -> str:
    """The text of a whole sequence; bytes that are no character become U+FFFD."""
    detokenizer = Detokenizer(tokenizer, skip_special=skip_special)
    return detokenizer.feed(token_ids) + detokenizer.flush()
