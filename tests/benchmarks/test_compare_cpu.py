"""The command: what its flags ask for, and what it shows of an earlier result."""

import json
from pathlib import Path

import pytest

from benchmarks.compare.points import Part
from benchmarks.compare_cpu import main, parse_arguments, read_samples, report
from tests.benchmarks.compare.samples_of import samples_of

NEEDED = ["--peers", "p", "--out", "o.json"]


def test_everything_is_measured_in_five_rounds_where_nothing_is_said() -> None:
    arguments = parse_arguments(NEEDED)

    assert arguments.rounds == 5
    assert arguments.part == list(Part)
    assert arguments.formats == ("Q4_0", "Q4_1", "Q8_0", "BF16")


def test_a_quick_look_is_one_round() -> None:
    assert parse_arguments([*NEEDED, "--quick"]).rounds == 1
    assert parse_arguments([*NEEDED, "--quick", "--rounds", "2"]).rounds == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--peers and --out are needed"),
        ([*NEEDED, "--formats", "Q5_0"], "must be some of Q4_0"),
        ([*NEEDED, "--rounds", "0"], "must be 1 or more"),
        ([*NEEDED, "--part", "everything"], "invalid Part value"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(flags)

    assert message in capsys.readouterr().err


def test_results_are_shown_together_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "ours.json", tmp_path / "theirs.json"]
    for path, contender, speed in zip(paths, ("shardline", "llama.cpp"), (3.0, 2.0), strict=True):
        path.write_text(json.dumps(report({}, samples_of(contender, [speed]))))

    assert main(["--table", *map(str, paths)]) == 0

    shown = capsys.readouterr().out
    assert "| shardline Q8_0 | 3 |" in shown
    assert "| 1.50 (1.50–1.50) | ≥ 1.3 (1.4) | goal |" in shown
    assert read_samples(paths) == [*samples_of("shardline", [3.0]), *samples_of("llama.cpp", [2.0])]


def test_a_report_tells_bars_and_noise() -> None:
    told = report({"commit": "c"}, [*samples_of("shardline", [2.0]), *samples_of("llama.cpp", [2.0])])

    (bar,) = told["bars"]
    assert (bar["name"], bar["met"], bar["ratio"]["median"]) == ("engines: decode 1, tokens_per_s, Q8_0", False, 1.0)
    assert told["noise"]["others_cpu_share"]["median"] == 0.0
    assert (told["commit"], len(told["samples"])) == ("c", 2)
