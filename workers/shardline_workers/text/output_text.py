"""One sequence's tokens to the text that a client sees: leader and router both go through here, and so agree.

    token ids → Detokenizer → StopMatcher → text

The leader asks where a stop string was complete; the router streams the text. A router that takes a stream over feeds
the log's tokens from the first one and sends what its client has not seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shardline_workers.text.detokenizer import Detokenizer
from shardline_workers.text.stop_matcher import StopMatcher
from shardline_workers.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputHit:
    """A stop string was found."""

    stop: str
    text_end: int  # characters of the sequence's whole text that count
    token_index: int  # of the ids fed in this call, the one that completed the stop: it is the sequence's last


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Text that the fed tokens made safe to show, and the hit, in the one call whose tokens completed it."""

    text: str
    hit: OutputHit | None = None


class OutputText:
    """The text of one sequence. What was given out so far is a pure function of the ids fed so far."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stops: Sequence[str] = (),
        include_stop: bool = False,
        skip_special: bool = True,
        min_tokens: int = 0,
        silent_ids: frozenset[int] = frozenset(),
    ) -> None:
        """A stop string that is complete with the first `min_tokens` tokens is text like any other.

        Tokens of `silent_ids` have no text; they count towards `min_tokens` all the same.
        """
        self._silent_ids = silent_ids
        self._min_tokens = min_tokens
        self._num_tokens = 0
        self._detokenizer = Detokenizer(tokenizer, skip_special=skip_special)
        self._matcher = StopMatcher(stops, include_stop=include_stop)
        self._ended = False

    def feed(self, token_ids: Sequence[int]) -> OutputPiece:
        """Takes the next ids. Those behind the one that completed a stop, now or earlier, bring no text."""
        texts: list[str] = []
        for index, token_id in enumerate(() if self._ended else token_ids):
            self._num_tokens += 1
            if token_id in self._silent_ids:
                continue
            may_stop = self._num_tokens > self._min_tokens
            progress = self._matcher.feed(self._detokenizer.feed((token_id,)), may_stop=may_stop)
            texts.append(progress.text)
            if progress.hit is not None:
                self._ended = True
                hit = OutputHit(stop=progress.hit.stop, text_end=progress.hit.text_end, token_index=index)
                return OutputPiece("".join(texts), hit)
        return OutputPiece("".join(texts))

    def finish(self) -> str:
        """The rest of the text when the sequence ends without a stop string: what was held back, half a character too.

        Nothing after a hit. No stop string is looked for in what a broken last character becomes.
        """
        if self._ended:
            return ""
        self._ended = True
        return self._matcher.flush() + self._detokenizer.flush()
