"""Where a controller that stands alone keeps its replicas: a folder for each cluster, which its next life finds."""

import hashlib
from pathlib import Path

from shardline_cluster.queue.redis_connection import RedisAddress
from shardline_cluster.serve.private_folder import default_root, make_private


def controller_folder(redis_url: str, *, prefix: str, cluster: str, root: Path | None = None) -> Path:
    """The folder, which only this user can open.

    Raises:
        ConfigurationError: it is somebody else's, or the URL is none.
    """
    parent = root or default_root()
    make_private(parent)
    names = "\0".join((RedisAddress.parse(redis_url).shown, prefix, cluster))
    folder = parent / f"c-{hashlib.blake2b(names.encode(), digest_size=6).hexdigest()}"
    make_private(folder)
    return folder
