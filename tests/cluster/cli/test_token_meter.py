"""Time to the first token and tokens a second, by a clock that the test turns."""

import pytest

from shardline.results import Finished, RequestState, Tokens, Usage
from shardline_cluster.cli.token_meter import TokenMeter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def tokens(num_tokens: int) -> Tokens:
    return Tokens(request_id="r", cursor=b"", sequence=0, offset=0, token_ids=tuple(range(num_tokens)), text="")


def watch(meter: TokenMeter, clock: Clock, *arrivals: tuple[float, int]) -> None:
    for instant, num_tokens in arrivals:
        clock.now = instant
        meter.watch(tokens(num_tokens))


def test_the_wait_for_the_first_token_is_told_apart_from_the_rate() -> None:
    clock = Clock()
    meter = TokenMeter(clock)

    watch(meter, clock, (100.5, 1), (101.0, 5), (102.5, 15))

    assert meter.first_token_s == 0.5
    assert meter.tokens_per_s == pytest.approx(10.0)


def test_text_without_tokens_is_no_first_token() -> None:
    clock = Clock()
    meter = TokenMeter(clock)

    watch(meter, clock, (100.5, 0), (101.0, 1))

    assert meter.first_token_s == 1.0
    assert meter.tokens_per_s is None


def test_the_summary_says_what_is_known() -> None:
    clock = Clock()
    meter = TokenMeter(clock)
    assert meter.summary() == "0 tokens"

    watch(meter, clock, (100.25, 2), (101.25, 8))
    meter.watch(
        Finished(request_id="r", cursor=b"", state=RequestState.DONE, sequences=(), usage=Usage(prompt_tokens=4))
    )

    assert meter.summary() == "4 prompt tokens, 10 tokens, first after 250 ms, 8.0 tokens/s"
