import dataclasses
import os
from pathlib import Path

import pytest
import torch

from shardline_workers.kernels.kernel_choice import KernelWish, choose_device, choose_dtype, choose_kernels
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.operands import AttentionShape

WISH = KernelWish(
    kernels="auto",
    device=torch.device("cpu"),
    dtype="auto",
    kv_cache_dtype="auto",
    block_size=None,
    attention=AttentionShape(num_heads=2, num_kv_heads=1, head_dim=64),
    weights_digest="0123456789abcdef",
    slice_name="tp0of1",
    num_threads=1,
)


def chosen(**changes: object) -> str:
    wish = dataclasses.replace(WISH, **changes)  # type: ignore[arg-type]
    kernels = choose_kernels(wish, environment=os.environ, report=lambda _: None)
    kernels.close()
    return kernels.name


def test_native_kernels_run_on_a_cpu_by_themselves(native_library: NativeLibrary) -> None:
    assert chosen() == "native"


def test_the_reference_is_one_word_away() -> None:
    assert chosen(kernels="reference") == "reference"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_named_dtype_is_the_references(dtype: str) -> None:
    assert chosen(dtype=dtype) == "reference"


def test_heads_that_native_code_cannot_compute_are_the_references() -> None:
    assert chosen(attention=AttentionShape(num_heads=2, num_kv_heads=1, head_dim=20)) == "reference"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "float32"}, "they keep weights in the file's own format, and dtype is 'float32'"),
        ({"block_size": 8}, "they take blocks of 32 or 64 tokens, and block_size is 8"),
        ({"attention": AttentionShape(num_heads=1, num_kv_heads=1, head_dim=20)}, "heads of 20 dimensions"),
    ],
)
def test_native_kernels_that_cannot_do_what_is_wished_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(kernels="native", **changes)


@pytest.mark.parametrize(
    ("kernels", "kv_cache_dtype", "kept_in"),
    [
        ("native", "auto", torch.bfloat16),
        ("native", "bfloat16", torch.bfloat16),
        ("native", "int8", torch.int8),
        ("reference", "auto", torch.float32),
        ("reference", "bfloat16", torch.bfloat16),
        ("reference", "int8", torch.int8),
    ],
)
def test_keys_and_values_are_kept_in_what_was_asked_for(
    kernels: str, kv_cache_dtype: str, kept_in: torch.dtype, native_library: NativeLibrary
) -> None:
    wish = dataclasses.replace(WISH, kernels=kernels, kv_cache_dtype=kv_cache_dtype)

    chosen_kernels = choose_kernels(wish, environment=os.environ, report=lambda _: None)

    assert chosen_kernels.formats.kv_cache is kept_in
    assert chosen_kernels.numerics["kv_dtype"] == str(kept_in).removeprefix("torch.")
    chosen_kernels.close()


def test_unknown_formats_of_keys_and_values_are_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="kv_cache_dtype is 'fp8'; it must be one of auto, bfloat16, int8"):
        chosen(kv_cache_dtype="fp8")


def test_unknown_kernels_are_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="kernels is 'fast'; it must be one of auto, native, reference"):
        chosen(kernels="fast")


class TestWithoutACompiler:
    def test_the_reference_takes_over_and_one_line_says_why_and_what_it_costs(self, tmp_path: Path) -> None:
        lines: list[str] = []
        empty = {"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}

        kernels = choose_kernels(WISH, environment=empty, report=lines.append)

        assert kernels.name == "reference"
        (warning,) = lines
        assert "no C++ compiler was found (looked for c++, g++, clang++ on PATH)" in warning
        assert "9 times slower" in warning
        assert "install a C++17 compiler" in warning

    def test_native_kernels_that_were_asked_for_are_refused(self, tmp_path: Path) -> None:
        wish = dataclasses.replace(WISH, kernels="native")

        with pytest.raises(ValueError, match=r"no C\+\+ compiler was found"):
            choose_kernels(wish, environment={"PATH": "", "XDG_CACHE_HOME": str(tmp_path)}, report=print)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_there_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"device 'cuda' cannot be used by torch .* take --device cpu"):
        chosen(device=torch.device("cuda"))


@pytest.mark.parametrize("name", ["gpu", "cpu:x", ""])
def test_a_device_that_torch_does_not_know_is_refused_with_what_could_stand_there(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device is '{name}', which torch .* does not know; take cpu, cuda"):
        choose_device(name)


def test_auto_is_float32_on_cpus_and_bfloat16_elsewhere() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16


def test_a_named_dtype_is_taken_on_any_device() -> None:
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16


def test_an_unknown_dtype_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="'int4'; it must be one of auto, float32, float64, bfloat16, float16"):
        choose_dtype("int4", torch.device("cpu"))
