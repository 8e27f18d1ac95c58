"""The commands of serve's children: what they may read, and what they must not."""

import sys
from pathlib import Path

from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.serve.commands import Commands


def test_no_child_takes_modules_from_the_folder_in_which_serve_was_started(tmp_path: Path) -> None:
    config = RouterConfig(port=1, redis_url="", terms=QueueTerms(), cache_folder="")

    (router,) = Commands(logs=tmp_path).routers(config, 1)

    assert router.command[:3] == (sys.executable, "-P", "-m")
