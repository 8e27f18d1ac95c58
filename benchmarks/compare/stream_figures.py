"""Figures of streams that ran side by side. Pure: instants in, figures out; instants are seconds of one clock."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTimes:
    """One request's stream."""

    sent_at: float
    arrivals: tuple[tuple[float, float], ...]  # instant and number of tokens of each event
    ended_at: float

    @property
    def num_tokens(self) -> float:
        """Tokens that arrived."""
        return sum(count for _, count in self.arrivals)


def stream_figures(streams: Sequence[StreamTimes]) -> dict[str, float]:
    """What streams that were sent together say.

    `tokens_per_s` counts from the first sending to the last end, prefill included. `decode_tokens_per_s` counts tokens
    that arrived after every stream had begun and before the first one had its last token. `inter_token_p50_ms` is the
    pause before an event, shared among its tokens.
    """
    began, ended = min(stream.sent_at for stream in streams), max(stream.ended_at for stream in streams)
    return {
        "tokens_per_s": sum(stream.num_tokens for stream in streams) / (ended - began),
        "decode_tokens_per_s": _decode_rate(streams),
        "first_token_p50_ms": 1e3 * statistics.median(s.arrivals[0][0] - s.sent_at for s in streams),
        "inter_token_p50_ms": 1e3 * statistics.median(_pauses_s(streams)),
    }


def _decode_rate(streams: Sequence[StreamTimes]) -> float:
    """Where streams do not overlap (the last began after the first had ended), there is no rate: 0."""
    begin = max(stream.arrivals[0][0] for stream in streams)
    end = min(stream.arrivals[-1][0] for stream in streams)
    tokens = sum(count for stream in streams for instant, count in stream.arrivals if begin < instant <= end)
    return tokens / (end - begin) if end > begin else 0.0


def _pauses_s(streams: Sequence[StreamTimes]) -> list[float]:
    pauses = [(b - a) / count for stream in streams for (a, _), (b, count) in pairwise(stream.arrivals)]
    return pauses or [0.0]


def mean_figures(groups: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of several groups of streams that ran after each other."""
    return {name: statistics.fmean(group[name] for group in groups) for name in groups[0]}
