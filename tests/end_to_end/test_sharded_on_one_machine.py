"""`serve` with several ranks on one machine, without Ray: the leader starts them, and they go with it."""

import os
import signal
from pathlib import Path

import pytest

from shardline import AsyncClient
from tests.bad_input.tiny_model import write_tiny_model
from tests.end_to_end.served_cluster import served_cluster
from tests.end_to_end.streams import hear

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]

PLAIN = ("--dtype", "float64", "--kernels", "reference", "--max-model-len", "128", "--kv-cache-tokens", "512")
RANK = "shardline_workers.gang.rank_process"


async def _answer(client: AsyncClient, model: str) -> list[int]:
    async with client.stream("tell", model=model, max_tokens=60, temperature=0.0, ignore_eos=True) as stream:
        return (await hear(stream)).ids[0]


async def test_ranks_answer_as_one_does_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    model = str(write_tiny_model(tmp_path / "tiny"))
    shape = ("--tensor-parallel-size", "3", "--pipeline-parallel-size", "1")
    with served_cluster(model, *PLAIN, *shape, "--launcher", "local") as cluster:
        endpoint = ("--endpoint", cluster.endpoint)
        deployed = cluster.command("deploy", model, "--as", "alone", *PLAIN, *endpoint, timeout_s=60)
        assert deployed.returncode == 0, deployed.stderr
        async with AsyncClient(cluster.endpoint, patience_s=60) as client:
            alone = await _answer(client, "alone")
            sharded = await _answer(client, "tiny")
            ranks = cluster.pids(RANK)
            os.kill(ranks[0], signal.SIGKILL)
            again = await _answer(client, "tiny")
            after = cluster.pids(RANK)

    assert sharded == alone
    assert again == alone
    assert len(ranks) == len(after) == 2
    assert not set(ranks) & set(after)


def test_a_shape_that_the_model_cannot_have_is_refused_before_anything_starts(tmp_path: Path) -> None:
    model = str(write_tiny_model(tmp_path / "tiny"))

    shape = ("--tensor-parallel-size", "5", "--launcher", "local")

    with pytest.raises(AssertionError) as refused, served_cluster(model, *PLAIN, *shape):
        pass

    told = str(refused.value)
    assert "tp=5 is more than the model's 4 attention heads; the nearest shape that this model can have is tp=4" in told
    assert "starting Redis" not in told
