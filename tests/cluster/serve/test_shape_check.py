"""What the engine knows of a file is asked before `serve` starts anything."""

from dataclasses import replace
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.deployment_plan import WantedModel, plan_deployment
from shardline_cluster.serve.shape_check import check_shape
from tests.bad_input.tiny_model import write_tiny_model


def _planned(folder: Path, **sizes: int) -> Deployment:
    wanted = WantedModel(model=str(folder), name="tiny", engine=EngineOptions(**sizes))  # type: ignore[arg-type]
    return plan_deployment(wanted, cache_folder=folder, say=lambda _line: None)


@pytest.mark.parametrize("tp", [1, 2, 3, 4])
def test_a_file_that_can_be_dealt_so_passes(tmp_path: Path, tp: int) -> None:
    check_shape(_planned(write_tiny_model(tmp_path), tensor_parallel_size=tp), cache_folder=tmp_path)


def test_more_ranks_than_the_engine_has_parts_for_are_refused(tmp_path: Path) -> None:
    good = _planned(write_tiny_model(tmp_path), tensor_parallel_size=2)
    asked = replace(good, options=EngineOptions(tensor_parallel_size=5))

    with pytest.raises(ConfigurationError, match=r"cannot be dealt to tp=5: .*; the nearest that works is tp=4"):
        check_shape(asked, cache_folder=tmp_path)
