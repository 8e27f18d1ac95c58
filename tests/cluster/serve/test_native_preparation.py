"""What a user is told at the start about native kernels."""

import os
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.serve.native_preparation import prepare_native_kernels
from shardline_workers.kernels.native_library import NativeLibrary


@pytest.fixture
def without_compiler(tmp_path: Path) -> dict[str, str]:
    return {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}


def told(environment: dict[str, str], options: EngineOptions) -> list[str]:
    lines: list[str] = []
    prepare_native_kernels(options, environment=environment, say=lines.append)
    return lines


def test_without_a_compiler_one_line_warns_of_what_it_costs(without_compiler: dict[str, str]) -> None:
    (line,) = told(without_compiler, EngineOptions())

    assert "WARNING: the reference kernels take over: no C++ compiler was found" in line
    assert "9 times slower" in line


def test_native_kernels_that_were_asked_for_are_refused_before_anything_starts(
    without_compiler: dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError, match=r"--kernels native: no C\+\+ compiler was found"):
        told(without_compiler, EngineOptions(kernels="native"))


def test_a_dtype_that_takes_the_slow_kernels_is_told_at_once(without_compiler: dict[str, str]) -> None:
    (line,) = told(without_compiler, EngineOptions(dtype="float16"))

    assert "many times slower" in line
    assert "--dtype float16: leave it out" in line


def test_a_dtype_that_native_kernels_do_not_have_is_refused_before_anything_starts(
    without_compiler: dict[str, str],
) -> None:
    with pytest.raises(ConfigurationError, match=r"--dtype float16 cannot be had: leave --dtype out"):
        told(without_compiler, EngineOptions(kernels="native", dtype="float16"))


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(kernels="reference"),
        EngineOptions(kernels="reference", dtype="float32"),
        EngineOptions(device="cuda"),
        EngineOptions(engine="simulated"),
    ],
)
def test_who_does_not_want_them_hears_nothing(without_compiler: dict[str, str], options: EngineOptions) -> None:
    assert told(without_compiler, options) == []


def test_kernels_that_are_built_already_are_no_news(native_library: NativeLibrary) -> None:
    assert told(dict(os.environ), EngineOptions()) == []
