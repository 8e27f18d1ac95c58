import pytest
import torch

from shardline_workers.kernels.kernel_choice import choose_dtype, choose_kernels


def test_the_reference_runs_on_a_cpu() -> None:
    assert choose_kernels(torch.device("cpu")).name == "reference"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_a_device_that_is_not_there_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"device 'cuda' cannot be used by torch .* take --device cpu"):
        choose_kernels(torch.device("cuda"))


def test_auto_is_float32_on_cpus_and_bfloat16_elsewhere() -> None:
    assert choose_dtype("auto", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cuda")) is torch.bfloat16


def test_a_named_dtype_is_taken_on_any_device() -> None:
    assert choose_dtype("float16", torch.device("cpu")) is torch.float16


def test_an_unknown_dtype_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match="'int4'; it must be one of auto, float32, float64, bfloat16, float16"):
        choose_dtype("int4", torch.device("cpu"))
