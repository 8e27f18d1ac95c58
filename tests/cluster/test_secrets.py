"""Records that hold a secret do not show it: their representations end up in tracebacks and logs."""

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.cli.commands.status import QueueAddress
from shardline_cluster.cli.router_address import RouterAddress
from shardline_cluster.cli.run_file import RunFile
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.redis_connection import RedisAddress
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.tls_files import Certificates
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions
from tests.cluster.router.router_bench import deployment

SECRET = "sesame"
URL = f"redis://shardline:{SECRET}@localhost:6379/0"
RULES = AccessRules(flag_keys=(ApiKey(id="k", digest=SECRET, tenant="t"),))


@pytest.mark.parametrize(
    "record",
    [
        RedisAddress.parse(URL),
        RouterConfig(redis_url=URL, terms=QueueTerms(), cache_folder="/c", access=RULES),
        ControllerConfig(redis_url=URL),
        ReplicaSpec(
            deployment=deployment(), replica="r", incarnation="i", redis_url=URL, prefix="p", terms=QueueTerms()
        ),
        ServeOptions(
            model="m",
            served_model_name="m",
            launcher=LauncherKind.LOCAL,
            redis_url=URL,
            cache_folder="/c",
            access=RULES,
        ),
        RunFile(name="n", endpoints=(), redis_url=URL, redis_prefix="p", pid=1, started=0.0),
        QueueAddress(URL, "p"),
        RouterAddress((), api_key=SECRET),
        Certificates(cert=b"", key=SECRET.encode(), client_ca=None, names=(), valid_until=0.0),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_shows_no_secret(record: object) -> None:
    assert SECRET not in repr(record)
    assert SECRET not in str(record)
