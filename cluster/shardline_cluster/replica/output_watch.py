"""Where the sequences of one request end: by the engine's word, by a stop string, or by what the log held already."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.replica.request_plan import RequestPlan
from shardline_workers.engine import FinishReason
from shardline_workers.text.output_text import OutputHit, OutputText
from shardline_workers.text.tokenizer import Tokenizer

REPLAY_CHUNK_TOKENS = 512  # then the event loop gets a turn


@dataclass(frozen=True, slots=True)
class WatchedTokens:
    """Tokens of a step that count, and how they end the sequence, if they do."""

    num_tokens: int
    finish: SequenceFinish | None
    found_stop: bool  # the engine does not know of this end


class OutputWatch:
    """Watches one request's output. Text is made only where there are stop strings to look for."""

    def __init__(self, plan: RequestPlan, *, tokenizer: Tokenizer) -> None:
        self.plan = plan
        self._sampling = plan.sampling
        self._texts = [
            OutputText(
                tokenizer,
                stops=plan.stops,
                include_stop=plan.include_stop,
                skip_special=plan.skip_special,
                min_tokens=plan.sampling.min_tokens,
            )
            for _ in range(plan.num_outputs if plan.stops else 0)
        ]

    async def replay(self, sequence: int, ids: Sequence[int]) -> SequenceFinish | None:
        """Feeds what the log holds; tells how the sequence has ended already.

        A log may end in a stop without saying so: a hold forbids ends, and then its leader may have died.
        """
        for start in range(0, len(ids), REPLAY_CHUNK_TOKENS):
            hit = self._hit(sequence, ids[start : start + REPLAY_CHUNK_TOKENS])
            if hit is not None:
                return _stopped(hit)
            await asyncio.sleep(0)
        if ids and ids[-1] in self._sampling.stop_token_ids and len(ids) > self._sampling.min_tokens:
            return SequenceFinish(FinishReason.STOP.value)
        return SequenceFinish(FinishReason.LENGTH.value) if len(ids) >= self._sampling.max_tokens else None

    def feed(self, sequence: int, ids: Sequence[int], finish: FinishReason | None) -> WatchedTokens:
        """Takes what a step brought. The token that completes a stop string is the sequence's last."""
        hit = self._hit(sequence, ids)
        if hit is not None:
            return WatchedTokens(hit.token_index + 1, _stopped(hit), found_stop=finish is None)
        return WatchedTokens(len(ids), None if finish is None else SequenceFinish(finish.value), found_stop=False)

    def _hit(self, sequence: int, ids: Sequence[int]) -> OutputHit | None:
        return self._texts[sequence].feed(ids).hit if self._texts else None


def _stopped(hit: OutputHit) -> SequenceFinish:
    return SequenceFinish(FinishReason.STOP.value, stop=hit.stop, text_end=hit.text_end)
