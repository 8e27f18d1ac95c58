"""What operators send: bytes → ApplyDeploymentRequest → engine options → a deployment as it lies in Redis and back."""

from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.json_encoding import from_json, to_json
from shardline_cluster.router.admin.deployment_messages import wanted_model
from shardline_protos import admin_pb2 as pb
from tests.fuzz.bytes_mutation import mutated
from tests.fuzz.message_mutation import mutate_message
from tests.fuzz.target import FuzzTarget


def make_apply(random: Random) -> bytes:
    """A good request with some fields changed, sometimes with damaged bytes."""
    request = pb.ApplyDeploymentRequest(name="m", model="models/m.gguf", replicas=2)
    options = request.options
    options.max_num_seqs, options.max_num_batched_tokens, options.kv_cache_tokens = 8, 64, 4096
    options.chat_template = "{{ messages[0].content }}"
    for _ in range(random.choice((0, 1, 2, 4))):
        mutate_message(random, options if random.random() < 0.7 else request)
    content = request.SerializeToString(deterministic=True)
    return mutated(random, content) if random.random() < 0.2 else content


def read_apply(content: bytes, _folder: Path) -> None:
    """Understands it, and keeps what it asks for.

    Raises:
        DecodeError, InvalidRequestError: as a router refuses it.
    """
    wanted = wanted_model(pb.ApplyDeploymentRequest.FromString(content), cluster="default")
    deployment = Deployment(
        name=wanted.name,
        model=wanted.model,
        lane="m-1",
        weights_digest="00",
        max_model_len=64,
        num_replicas=wanted.num_replicas,
        options=wanted.engine,
        cluster=wanted.cluster,
    )
    assert from_json(Deployment, to_json(deployment)) == deployment, "a deployment changes on its way"


ADMIN = FuzzTarget(name="admin", make=make_apply, run=read_apply, documented=(DecodeError, InvalidRequestError))
