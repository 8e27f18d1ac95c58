"""Wrong surroundings of `shardline serve`, one a row: what is wrong, what makes it so, and what the error names."""

# A row a line reads as a table, however long it is.
# ruff: noqa: E501
# fmt: off

import dataclasses
from collections.abc import Mapping

_GOOD: Mapping[str, str] = {"redis_version": "7.2.0", "maxmemory_policy": "noeviction", "aof_enabled": "1", "role": "master"}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What is wrong, and what the error must name, each as it stands in it. `{socket}` is the server's file."""

    what: str
    field: str
    value: str
    bound: str
    remedy: str
    url: str = "unix://{socket}"
    commands: tuple[str, ...] = ()  # that make a real server so
    info: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of a server that only says so

    @property
    def told(self) -> tuple[str, ...]:
        """Everything that the error must contain."""
        return (self.field, self.value, self.bound, self.remedy)


REAL = [
    Row("a server that forgets when it is full", "maxmemory-policy", "allkeys-lru", "deletes accepted requests", "set `maxmemory-policy noeviction`", commands=("CONFIG SET maxmemory-policy allkeys-lru",)),
    Row("a server that keeps nothing", "append-only file", "keeps no", "durability `relaxed`", "set `appendonly yes`", commands=("CONFIG SET appendonly no",)),
    Row("a server that never syncs", "appendfsync", "is no", "every second", "set `appendfsync everysec`", commands=("CONFIG SET appendfsync no",)),
    Row("no password where one is wanted", "refuses this user and password", "or wants some", "Authentication required", "unix://USER:PASSWORD@", commands=("CONFIG SET requirepass hush",)),
    Row("a wrong password", "refuses this user and password", "invalid username-password pair", "put the right ones", "unix://USER:PASSWORD@", url="unix://somebody:wrong@{socket}", commands=("CONFIG SET requirepass hush",)),
    Row("a user who may do little", "lets this user in", "no permissions", "all commands, keys and channels", "put another one", url="unix://weak:pw@{socket}", commands=("ACL SETUSER weak on >pw +ping +select +client ~*",)),
]

TOLD = [
    Row("a server of long ago", "version", "6.2.1", "7 or newer", "or Valkey", info={**_GOOD, "redis_version": "6.2.1"}),
    Row("a server in cluster mode", "cluster mode", "cannot be used", "not supported yet", "`cluster-enabled no`", info={**_GOOD, "cluster_enabled": "1"}),
    Row("a replica of another server", "slave", "db1", "cannot be used", "give the master's address", info={**_GOOD, "role": "slave", "master_host": "db1"}),
    Row("a server whose disk is full", "append-only file", "cannot write", "cannot be used", "make room on its disk", info={**_GOOD, "aof_last_write_status": "err"}),
]

AWAY = [
    Row("no server at that file", "Redis at unix://", "cannot be reached", "No such file", "give its right URL", url="unix://{socket}.not"),
    Row("no server at that port", "Redis at redis://127.0.0.1:1", "cannot be reached", "Connect call failed", "start it", url="redis://127.0.0.1:1"),
    Row("a URL that is none", "the URL of Redis", "'ftp'", "redis://HOST:PORT/DB", "must be", url="ftp://127.0.0.1"),
    Row("an option that is none", "the URL of Redis", "unknown option", "colour", "unix://", url="unix://{socket}?colour=red"),
]
