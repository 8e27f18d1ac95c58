"""Weights that cannot compute: told when they are loaded, or else by the request that met them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shardline_protos import generation_pb2 as pb
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ModelFiles, ModelKind
from shardline_workers.sharded_engine import ShardedEngine
from shardline_workers.text.load_text_model import load_text_model
from tests.bad_input.tiny_model import write_tiny_model
from tests.cluster.router.router_bench import read_all
from tests.cluster.served_engine import serve_engine

Change = Callable[[dict[str, np.ndarray]], None]
NORM = "model.norm.weight"


def _files(folder: Path, change: Change) -> ModelFiles:
    path = write_tiny_model(folder) / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return ModelFiles(source="m", kind=ModelKind.FOLDER, path=folder, digest="00", pinned=str(folder))


def _engine(files: ModelFiles) -> ShardedEngine:
    config = EngineConfig(
        files=files, dtype="float64", max_model_len=64, kv_cache_tokens=256, block_size=8, replicas_on_host=64
    )
    return load_engine(config, report=lambda _: None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda tensors: tensors.pop(NORM),
            (NORM, "1 tensors are missing", "its configuration describes", "fetch both again"),
        ),
        (lambda tensors: tensors.update({NORM: np.ones(7)}), (NORM, "(7,)", "(32,)")),
        (lambda tensors: tensors.update({NORM: np.ones(32, dtype=np.int32)}), (NORM, "'I32'", "F32", "not quantised")),
    ],
    ids=["a tensor is missing", "a tensor has another shape", "a tensor holds whole numbers"],
)
def test_weights_that_do_not_fit_are_refused_when_they_are_loaded(
    change: Change, told: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ModelFileError) as raised:
        _engine(_files(tmp_path, change))

    assert [part for part in told if part not in str(raised.value)] == [], raised.value


async def test_weights_that_are_no_numbers_fail_their_request_and_the_replica_goes_on(tmp_path: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.embed_tokens.weight"][261] = np.nan  # of the token `hello`

    files = _files(tmp_path, spoil)
    text = load_text_model(files, name="m", chat_template=None)
    bad, good = (
        pb.GenerateRequest(model="m", text=text_, sampling=pb.SamplingParams(max_tokens=2, temperature=0))
        for text_ in ("hello", "zz")
    )

    async with serve_engine(_engine(files), {"m": text}, led="m") as served:
        last = (await read_all(served.router.stub.Generate(bad)))[-1].finished
        await served.answer(good)
        rests = await served.comes_to_rest()

    assert last.state == pb.REQUEST_STATE_FAILED
    assert "NaN" in last.error
    assert rests
