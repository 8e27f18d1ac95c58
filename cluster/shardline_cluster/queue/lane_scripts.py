"""The Lua scripts of a lane, ready to be loaded into a server.

Each script stands in a file of its own and is loaded behind one prelude. The prelude's first part tells clock and
identity of the server; tests put another one in its place.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

PRELUDE = ("lane", "requests", "queues", "ending", "sweeping")
SCRIPTS = (
    "register",
    "configure",
    "submit",
    "claim",
    "commit",
    "release",
    "cancel",
    "attach",
    "detach",
    "look",
    "sweep",
    "restore",
    "forget",
    "drain",
    "view",
    "usage",
)


@dataclass(frozen=True, slots=True)
class LaneScript:
    """A script with its prelude, and the digest by which a server that has it knows it."""

    name: str
    text: str
    sha: str  # what EVALSHA takes


def load_lane_scripts(server: str | None = None) -> Mapping[str, LaneScript]:
    """All scripts by name. `server` replaces the prelude's part about clock and identity."""
    folder = files("shardline_cluster.queue") / "scripts"
    parts = [server or server_prelude()]
    parts.extend((folder / "prelude" / f"{part}.lua").read_text("utf-8") for part in PRELUDE)
    prelude = "\n".join(parts)
    return {name: _compose(name, prelude, (folder / f"{name}.lua").read_text("utf-8")) for name in SCRIPTS}


def server_prelude() -> str:
    """The part that knows the server's clock and identity."""
    return (files("shardline_cluster.queue") / "scripts" / "prelude" / "server.lua").read_text("utf-8")


def _compose(name: str, prelude: str, text: str) -> LaneScript:
    """The line that tells Redis the script's flags must come first."""
    shebang, body = text.split("\n", 1)
    whole = f"{shebang}\n{prelude}\n{body}"
    return LaneScript(name, whole, hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest())
