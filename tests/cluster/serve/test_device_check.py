"""A GPU that is not there is told before anything starts."""

from dataclasses import replace

import pytest
import torch

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.fleet.engine_bounds import SIMULATED
from shardline_cluster.serve.device_check import check_device
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions

OPTIONS = ServeOptions(
    model="m",
    served_model_name="m",
    launcher=LauncherKind.RAY,
    engine=EngineOptions(device="cuda:63"),
    cache_folder="/nowhere",
)


def test_a_gpu_that_this_machine_has_not_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=rf"--device cuda:63: .*torch {torch.__version__[:4]}.* take --device cpu"
    ):
        check_device(OPTIONS)


@pytest.mark.parametrize(
    "options",
    [
        replace(OPTIONS, engine=EngineOptions(device="cpu")),
        replace(OPTIONS, engine=EngineOptions(engine=SIMULATED, device="cuda:63")),
        replace(OPTIONS, ray_address="10.0.0.1:6379", redis_url="redis://10.0.0.1"),
    ],
)
def test_what_needs_no_gpu_here_is_not_refused(options: ServeOptions) -> None:
    check_device(options)
