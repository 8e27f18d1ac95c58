import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.text.stop_matcher import StopHit, StopMatcher
from tests.workers.text.cuts import cut, edges


def fed(matcher: StopMatcher, pieces: list[str]) -> tuple[list[str], list[StopHit]]:
    steps = [matcher.feed(piece) for piece in pieces]
    return [step.text for step in steps], [step.hit for step in steps if step.hit is not None]


def test_what_may_become_a_stop_is_held_back_and_given_out_when_it_does_not() -> None:
    matcher = StopMatcher(["END"], include_stop=False)

    texts, hits = fed(matcher, ["aE", "N", "x", "EN"])

    assert texts == ["a", "", "ENx", ""]
    assert hits == []
    assert matcher.flush() == "EN"


@pytest.mark.parametrize(("include_stop", "text", "text_end"), [(False, "ab", 2), (True, "abEND", 5)])
def test_a_stop_ends_the_text_before_or_behind_it(include_stop: bool, text: str, text_end: int) -> None:
    matcher = StopMatcher(["END"], include_stop=include_stop)

    texts, hits = fed(matcher, ["abE", "NDcd", "ef"])

    assert "".join(texts) == text
    assert hits == [StopHit("END", text_end)]
    assert matcher.flush() == ""


@pytest.mark.parametrize(
    ("stops", "text", "hit"),
    [
        (["b", "abc"], "xabc", StopHit("b", 2)),  # complete first
        (["bc", "abc"], "xabc", StopHit("abc", 1)),  # complete together: the longest
        (["abcd", "bc"], "xabcd", StopHit("bc", 2)),
        (["aab"], "aaab", StopHit("aab", 1)),
    ],
)
def test_the_stop_that_is_complete_first_wins_then_the_longest(stops: list[str], text: str, hit: StopHit) -> None:
    assert StopMatcher(stops, include_stop=False).feed(text).hit == hit


def test_an_empty_stop_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        StopMatcher(["a", ""], include_stop=False)


texts = st.text("abé", max_size=40)
stop_lists = st.lists(st.text("abé", min_size=1, max_size=5), max_size=4)


@given(text=texts, stops=stop_lists, at=edges, include_stop=st.booleans())
def test_what_is_given_out_does_not_depend_on_how_the_text_was_cut(
    text: str, stops: list[str], at: list[int], include_stop: bool
) -> None:
    one_by_one = StopMatcher(stops, include_stop=include_stop)
    in_pieces = StopMatcher(stops, include_stop=include_stop)
    pieces = cut(text, at)

    singles = [fed(one_by_one, list(piece)) for piece in pieces]

    for piece, (single_texts, single_hits) in zip(pieces, singles, strict=True):
        step = in_pieces.feed(piece)
        assert step.text == "".join(single_texts)
        assert step.hit == (single_hits[0] if single_hits else None)
    assert one_by_one.flush() == in_pieces.flush()


def first_stop(text: str, stops: list[str], *, after: int = 0) -> tuple[int, str] | None:
    """The definition, slowly: the first end, behind `after`, at which some stop is complete; the longest stop there."""
    for end in range(after + 1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return end, max(complete, key=len)
    return None


@given(text=texts, stops=stop_lists, at=edges)
def test_the_hit_is_the_one_of_the_definition(text: str, stops: list[str], at: list[int]) -> None:
    matcher = StopMatcher(stops, include_stop=False)

    given_out, hits = fed(matcher, cut(text, at))

    expected = first_stop(text, stops)
    if expected is None:
        assert hits == []
        assert "".join(given_out) + matcher.flush() == text
    else:
        end, stop = expected
        assert hits == [StopHit(stop, end - len(stop))]
        assert "".join(given_out) == text[: end - len(stop)]


@given(text=texts, stops=stop_lists, at=edges, num_quiet=st.integers(0, 20))
def test_what_may_not_stop_stops_nothing_and_may_begin_a_stop(
    text: str, stops: list[str], at: list[int], num_quiet: int
) -> None:
    matcher = StopMatcher(stops, include_stop=False)
    quiet = [matcher.feed(character, may_stop=False) for character in text[:num_quiet]]

    given_out, hits = fed(matcher, cut(text[num_quiet:], at))

    whole = "".join([*(step.text for step in quiet), *given_out])
    assert all(step.hit is None for step in quiet)
    expected = first_stop(text, stops, after=min(num_quiet, len(text)))
    if expected is None:
        assert hits == []
        assert whole + matcher.flush() == text
    else:
        end, stop = expected
        assert hits == [StopHit(stop, end - len(stop))]
        assert whole == text[: end - len(stop)]
