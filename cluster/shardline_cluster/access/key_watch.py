"""Keeps a router's keys up to date: asks the store each second, and looks whether the keys file has changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.key_table import KeySource, KeyTable
from shardline_cluster.access.keys_file_watch import KeysFileWatch
from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.fleet.kept_records import KeptRecords

log = logging.getLogger(__name__)

POLL_S = 1.0  # a revoked key ends its streams after this, the store's answer and a moment; five seconds are promised


class KeyWatch:
    """Feeds one `KeyTable`. What fails leaves the table as it was."""

    def __init__(
        self,
        table: KeyTable,
        records: KeptRecords[ApiKey],
        *,
        keys_file: KeysFileWatch | None,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called after each look, since keys also end by time alone."""
        self._table = table
        self._records = records
        self._keys_file = keys_file
        self._changed = changed
        self._watching: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Watches from now on. Each source on its own: a disk that hangs holds up no revocation."""
        self._watching.append(asyncio.create_task(self._keep(self.refresh_from_store)))
        if self._keys_file is not None:
            self._watching.append(asyncio.create_task(self._keep(self.refresh_from_file)))

    async def close(self) -> None:
        """Watches no more. The records stay open: they are not ours."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def refresh_from_store(self) -> None:
        """Reads the store once, and puts back what it has forgotten."""
        try:
            await self._records.refresh()
        except QueueUnavailableError:  # the directory of models says so already
            if not self._table.store_answered:
                return
        except ConfigurationError as error:
            log.error("the keys in Redis cannot be read, so nothing changes: %s", error)
            return
        self._table.give_records(self._records.records)

    async def refresh_from_file(self) -> None:
        """Reads the file once, if it has changed."""
        assert self._keys_file is not None, "there is no file to look at"
        keys = await asyncio.to_thread(self._keys_file.look)
        if keys is not None:
            self._table.give(KeySource.FILE, keys)

    async def _keep(self, refresh: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await refresh()
            except Exception:
                log.exception("looking for keys failed and is tried again")
            self._changed()
            await asyncio.sleep(POLL_S)
