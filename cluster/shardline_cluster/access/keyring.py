"""All that a router has to do with keys, put together: their table, its gate, and what keeps the table up to date."""

from collections.abc import Callable
from pathlib import Path

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.key_gate import KeyGate
from shardline_cluster.access.key_table import KeySource, KeyTable
from shardline_cluster.access.key_watch import KeyWatch
from shardline_cluster.access.keys_file_watch import KeysFileWatch
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.versioned_records import RecordStore
from shardline_cluster.processes.wall_clock import wall_clock_ms


class Keyring:
    """Of one router. `start`, and `close` at the end, which closes the store too."""

    def __init__(
        self, rules: AccessRules, store: RecordStore[ApiKey], *, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        """Reads the keys file, once. `now_ms` is the time of day, since 1970.

        Raises:
            ConfigurationError: it cannot be read, or a line is wrong.
        """
        self.now_ms = now_ms
        self.records = KeptRecords(store, now_ms=now_ms)
        self.table = KeyTable()
        self.gate = KeyGate(rules, self.table, now_ms=now_ms)
        keys_file = KeysFileWatch(Path(rules.keys_file)) if rules.keys_file is not None else None
        if keys_file is not None:
            self.table.give(KeySource.FILE, keys_file.read())
        self.table.give(KeySource.FLAG, rules.flag_keys)
        self._watch = KeyWatch(self.table, self.records, keys_file=keys_file, changed=self.gate.shut_out)

    async def start(self) -> None:
        """Looks at the store once, so that the first client meets keys that are known, and follows it from now on."""
        await self._watch.refresh_from_store()
        self._watch.start()

    def take(self) -> None:
        """Lets what was just written into `records` count at once, and not with the next look at the store."""
        self.table.give_records(self.records.records)
        self.gate.shut_out()

    async def close(self) -> None:
        """Follows nothing more."""
        await self._watch.close()
        await self.records.close()
