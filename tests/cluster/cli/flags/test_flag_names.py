"""Fields of the protocol are told as the flags that somebody typed."""

import pytest

from shardline_cluster.cli.flags.flag_names import in_flags

NAMES = {"top_p", "stop", "bad_word", "model", "timeout", "n", "prompt"}


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("sampling.top_p is 0.0: must be more than 0", "--top-p is 0.0: must be more than 0"),
        ("sampling.stop[1] has 0 characters: leave it out", "--stop[1] has 0 characters: leave it out"),
        ("sampling.bad_words has 129 entries: send fewer", "--bad-word has 129 entries: send fewer"),
        ("sampling.n is 9: send several requests", "--n is 9: send several requests"),
        ("model 'x' is not deployed", "--model 'x' is not deployed"),
        ("timeout is 0 s: must be more", "--timeout is 0 s: must be more"),
    ],
)
def test_a_field_with_a_flag_is_told_as_the_flag(told: str, shown: str) -> None:
    assert in_flags(told, NAMES) == shown


@pytest.mark.parametrize(
    "told",
    [
        "sampling.min_p is 3: there is no such flag here",
        "prompt has 300 tokens: no flag brought it",
        "the queue is full: try again",
        "priority is 3: no such flag here",
        "",
    ],
)
def test_all_other_messages_stay_as_they_are(told: str) -> None:
    assert in_flags(told, NAMES) == told
