"""Plans of a load: bounded, drawn from a seed, read from a trace."""

import random
from pathlib import Path

import pytest

from benchmarks.load_plan import LengthRange, PlannedRequest, closed_loop, open_loop, read_trace

SMALL, WIDE = LengthRange(3, 3), LengthRange(10, 20)


def test_a_closed_loop_has_no_instants_and_lengths_within_bounds() -> None:
    plan = closed_loop(random.Random(0), num_requests=200, prompt=SMALL, output=WIDE)

    assert [planned.number for planned in plan] == list(range(200))
    assert {planned.at_s for planned in plan} == {None}
    assert {planned.prompt_tokens for planned in plan} == {3}
    assert {planned.output_tokens for planned in plan} == set(range(10, 21))


def test_an_open_loop_arrives_at_its_rate() -> None:
    plan = open_loop(random.Random(0), rate_per_s=50.0, num_requests=5000, prompt=SMALL, output=SMALL)

    instants = [planned.at_s for planned in plan if planned.at_s is not None]
    assert instants == sorted(instants)
    assert len(instants) / instants[-1] == pytest.approx(50.0, rel=0.05)


def test_the_same_seed_is_the_same_plan() -> None:
    plans = [
        open_loop(random.Random(seed), rate_per_s=1.0, num_requests=5, prompt=WIDE, output=WIDE) for seed in (1, 1, 2)
    ]

    assert plans[0] == plans[1] != plans[2]


@pytest.mark.parametrize("header", ["", "seconds,prompt,output\n"])
def test_a_trace_is_read_row_by_row(tmp_path: Path, header: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(f"{header}0.5,10,20\n\n1.5,30,40\n2,1,1\n")

    assert read_trace(path, num_requests=2) == [PlannedRequest(0, 0.5, 10, 20), PlannedRequest(1, 1.5, 30, 40)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,1,1\nsoon,1,1\n", r"trace\.csv:2: \['soon', '1', '1'\] is not seconds,prompt tokens,output tokens"),
        ("0,1\n", r"trace\.csv:1"),
        ("0,0,1\n", r"trace\.csv:1.*too small"),
        ("5,1,1\n4,1,1\n", r"request 1 comes at 4\.0 s, before the one above it"),
    ],
)
def test_a_wrong_row_is_told_with_its_place(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(rows)

    with pytest.raises(ValueError, match=message):
        read_trace(path, num_requests=9)


def test_lengths_are_a_number_or_a_range() -> None:
    assert LengthRange.parse("128") == LengthRange(128, 128)
    assert LengthRange.parse("64-256") == LengthRange(64, 256)
    assert (str(LengthRange(5, 5)), str(LengthRange(5, 6))) == ("5", "5-6")


@pytest.mark.parametrize("text", ["", "a", "0", "9-3", "-5", "3-"])
def test_lengths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|no range"):
        LengthRange.parse(text)
