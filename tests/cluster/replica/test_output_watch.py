"""Where sequences end, whether the tokens come from the engine or from the log."""

import pytest

from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.replica.output_watch import REPLAY_CHUNK_TOKENS, OutputWatch, WatchedTokens
from shardline_cluster.replica.request_plan import RequestPlan
from shardline_workers.engine import FinishReason, Sampling
from shardline_workers.text.byte_tokenizer import ByteTokenizer

STOP = SequenceFinish("stop")
LENGTH = SequenceFinish("length")


def _watch(
    *stops: str, include_stop: bool = False, max_tokens: int = 10_000, stop_ids: frozenset[int] = frozenset()
) -> OutputWatch:
    plan = RequestPlan(
        prompt_ids=(1,),
        sampling=Sampling(max_tokens=max_tokens, stop_token_ids=stop_ids),
        stops=stops,
        include_stop=include_stop,
        skip_special=True,
        num_outputs=2,
    )
    return OutputWatch(plan, tokenizer=ByteTokenizer())


def test_without_a_finish_all_tokens_count() -> None:
    assert _watch("END").feed(0, b"EN", None) == WatchedTokens(2, None, found_stop=False)


def test_the_engines_finish_is_passed_on() -> None:
    assert _watch().feed(0, b"a", FinishReason.LENGTH) == WatchedTokens(1, LENGTH, found_stop=False)


def test_a_stop_string_cuts_behind_the_token_that_completes_it() -> None:
    watch = _watch("END")
    watch.feed(0, b"abE", None)

    found = watch.feed(0, b"ND and more", None)

    assert found == WatchedTokens(2, SequenceFinish("stop", "END", 2), found_stop=True)


def test_a_stop_string_wins_over_the_engines_finish_and_need_not_be_told_to_it() -> None:
    found = _watch("END").feed(0, b"END", FinishReason.LENGTH)

    assert found == WatchedTokens(3, SequenceFinish("stop", "END", 0), found_stop=False)


def test_an_included_stop_string_counts_as_text() -> None:
    assert _watch("END", include_stop=True).feed(0, b"aEND", None).finish == SequenceFinish("stop", "END", 4)


def test_sequences_are_watched_apart() -> None:
    watch = _watch("END")
    watch.feed(0, b"EN", None)

    assert watch.feed(1, b"D", None).finish is None
    assert watch.feed(0, b"D", None).finish is not None


async def test_a_replayed_log_goes_on_in_the_middle_of_a_stop_string() -> None:
    watch = _watch("END")

    replayed = await watch.replay(0, b"x" * (REPLAY_CHUNK_TOKENS - 1) + b"EN")

    assert replayed is None
    assert watch.feed(0, b"D", None).finish == SequenceFinish("stop", "END", REPLAY_CHUNK_TOKENS - 1)


@pytest.mark.parametrize(
    ("log", "finish"),
    [
        (b"abEND", SequenceFinish("stop", "END", 2)),
        (b"abc\x07", STOP),
        (b"x" * 20, LENGTH),
        (b"x" * 19, None),
        (b"", None),
    ],
)
async def test_a_log_that_has_ended_without_saying_so_is_noticed(log: bytes, finish: SequenceFinish | None) -> None:
    watch = _watch("END", max_tokens=20, stop_ids=frozenset({7}))

    assert await watch.replay(0, log) == finish
