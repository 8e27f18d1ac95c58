"""How a single case is judged."""

from pathlib import Path
from random import Random

import pytest

from tests.fuzz import case_runner
from tests.fuzz.case_runner import READ, TooSlowError, run_case
from tests.fuzz.target import FuzzTarget


class _DocumentedError(Exception):
    pass


def _target(run: object) -> FuzzTarget:
    return FuzzTarget(name="t", make=_nothing, run=run, documented=(_DocumentedError,))  # type: ignore[arg-type]


def _nothing(_random: Random) -> bytes:
    return b""


def test_a_case_that_returns_was_read(tmp_path: Path) -> None:
    assert run_case(_target(lambda _content, _folder: None), b"", tmp_path) == READ


def test_a_documented_refusal_is_counted_by_where_it_arose(tmp_path: Path) -> None:
    def refuse(_content: bytes, _folder: Path) -> None:
        raise _DocumentedError

    assert run_case(_target(refuse), b"", tmp_path) == "_DocumentedError"


def test_any_other_error_goes_on_to_whoever_runs_the_case(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_case(_target(lambda _content, _folder: 1 / 0), b"", tmp_path)


def test_a_case_that_computes_for_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_runner, "CASE_LIMIT_S", 0.05)

    def loop(_content: bytes, _folder: Path) -> None:
        while True:
            pass

    with pytest.raises(TooSlowError, match="CPU time"):
        run_case(_target(loop), b"", tmp_path)
