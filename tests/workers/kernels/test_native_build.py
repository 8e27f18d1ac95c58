"""Native code is built once for each version of sources and compiler, by one of several processes, and kept."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shardline_workers.kernels.native_build import built_library
from shardline_workers.kernels.native_compiler import CompilerError, find_compiler, unit_flags

pytestmark = pytest.mark.process  # the compiler


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two tiny units."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("int answer();\n")
    (folder / "one.cpp").write_text('#include "answer.h"\nint answer() { return 42; }\n')
    (folder / "two.cpp").write_text('#include "answer.h"\nextern "C" int twice() { return 2 * answer(); }\n')
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}


def built(environment: dict[str, str], sources: Path, lines: list[str] | None = None) -> Path:
    return built_library(environment, (lines if lines is not None else []).append, sources=sources)


def test_a_second_start_builds_nothing(environment: dict[str, str], sources: Path) -> None:
    lines: list[str] = []

    first, second = (built(environment, sources, lines) for _ in range(2))

    assert first == second
    assert len(lines) == 1
    assert "this is done once" in lines[0]


@pytest.mark.parametrize("name", ["one.cpp", "answer.h"])
def test_changed_sources_are_built_anew(environment: dict[str, str], sources: Path, name: str) -> None:
    before = built(environment, sources)
    (sources / name).write_text((sources / name).read_text() + "// changed\n")

    assert built(environment, sources) != before


def test_another_compiler_builds_anew(environment: dict[str, str], sources: Path, tmp_path: Path) -> None:
    before = built(environment, sources)
    wrapper = tmp_path / "wrapped"
    wrapper.write_text('#!/bin/sh\nexec c++ "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)

    after = built({**environment, "CXX": str(wrapper)}, sources)

    assert after != before
    assert after.parent == before.parent


def test_many_starts_at_once_build_one_library(environment: dict[str, str], sources: Path) -> None:
    lines: list[str] = []

    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda _: built(environment, sources, lines), range(4)))

    assert len(paths) == 1
    assert len(lines) == 1


def test_without_a_compiler_what_was_built_before_is_taken(environment: dict[str, str], sources: Path) -> None:
    before = built(environment, sources)

    assert built({**environment, "PATH": ""}, sources) == before


def test_without_a_compiler_nothing_is_built(environment: dict[str, str], sources: Path) -> None:
    with pytest.raises(CompilerError, match=r"looked for c\+\+, g\+\+, clang\+\+ on PATH"):
        built({**environment, "PATH": ""}, sources)


def test_a_compiler_that_was_named_and_is_not_there_is_told(environment: dict[str, str], sources: Path) -> None:
    with pytest.raises(CompilerError, match="looked for CXX=no-such-compiler -O1 on PATH"):
        built({**environment, "CXX": "no-such-compiler -O1"}, sources)


def test_a_unit_that_does_not_compile_is_told_with_the_compilers_words(
    environment: dict[str, str], sources: Path
) -> None:
    (sources / "one.cpp").write_text("int answer() { return nonsense; }\n")

    with pytest.raises(CompilerError, match=r"refused one\.cpp: .*nonsense"):
        built(environment, sources)

    assert not list(Path(environment["XDG_CACHE_HOME"]).rglob("*.so"))


class TestFlags:
    @pytest.fixture
    def unit(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "dots.cpp"
        path.write_text("// flags: -mavx2 -mfma\nint dots();\n")
        yield path

    def test_a_unit_names_its_instruction_set_in_its_first_line(self, unit: Path) -> None:
        flags = unit_flags(unit, "x86_64")

        assert flags is not None
        assert flags[-2:] == ("-mavx2", "-mfma")
        assert "-O3" in flags

    def test_such_a_unit_is_left_out_elsewhere(self, unit: Path) -> None:
        assert unit_flags(unit, "aarch64") is None

    @pytest.mark.parametrize("machine", ["aarch64", "arm64"])
    def test_a_unit_for_arm_is_left_out_on_x86(self, unit: Path, machine: str) -> None:
        unit.write_text("// arm64 flags: -march=armv8.2-a+dotprod\nint dots();\n")

        flags = unit_flags(unit, machine)

        assert flags is not None
        assert flags[-1] == "-march=armv8.2-a+dotprod"
        assert unit_flags(unit, "x86_64") is None

    def test_other_units_are_built_everywhere(self, unit: Path) -> None:
        unit.write_text("int dots();\n")

        assert unit_flags(unit, "aarch64") == unit_flags(unit, "x86_64")


def test_the_compiler_of_the_environment_comes_first(environment: dict[str, str]) -> None:
    found = find_compiler({**environment, "CXX": "c++ -g"})

    assert found.command[1:] == ("-g",)
