"""A router's keys follow the store and the file, put back what the store forgot, and outlive both."""

from pathlib import Path

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.key_watch import KeyWatch
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.access.keys_file_watch import KeysFileWatch
from shardline_cluster.errors import ConfigurationError, QueueUnavailableError, UnauthenticatedError
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.versioned_records import Versioned
from tests.cluster.access.known_keys import NOW_MS, Clock, a_key, a_secret, showing

A, B = a_key("a"), a_key("b")


class _World:
    """A store, and one router's keys, which look at it when the test says."""

    def __init__(self, rules: AccessRules | None = None) -> None:
        self.clock = Clock()
        self.store = MemoryRecordStore[ApiKey](now_ms=self.clock)
        self.rules = rules or AccessRules()

    def keyring(self) -> Keyring:
        return Keyring(self.rules, self.store, now_ms=self.clock)


def _watch_of(keyring: Keyring, keys_file: Path | None = None) -> KeyWatch:
    file = KeysFileWatch(keys_file) if keys_file is not None else None
    return KeyWatch(keyring.table, keyring.records, keys_file=file, changed=keyring.gate.shut_out)


def _admitted(keyring: Keyring, key_id: str) -> str:
    return keyring.gate.admit(showing(a_secret(key_id)), time_remaining_s=None).tenant


async def test_a_key_that_is_put_into_the_store_counts_and_ends_with_its_revocation() -> None:
    world = _World()
    keyring = world.keyring()
    watch = _watch_of(keyring)
    await world.store.put("a", Versioned(NOW_MS, A))
    await watch.refresh_from_store()
    tenant = _admitted(keyring, "a")

    await world.store.put("a", Versioned(NOW_MS + 1, None))
    await watch.refresh_from_store()

    assert tenant == "tenant-a"
    with pytest.raises(UnauthenticatedError, match="revoked"):
        _admitted(keyring, "a")


async def test_a_store_that_forgets_everything_gets_living_and_revoked_keys_back() -> None:
    world = _World()
    keyring = world.keyring()
    watch = _watch_of(keyring)
    await world.store.put("a", Versioned(NOW_MS, A))
    await world.store.put("b", Versioned(NOW_MS, B))
    await world.store.put("a", Versioned(NOW_MS + 1, None))
    await watch.refresh_from_store()
    before = await world.store.all()

    world.store.forget()
    await watch.refresh_from_store()

    assert await world.store.all() == before
    assert _admitted(keyring, "b") == "tenant-b"
    with pytest.raises(UnauthenticatedError):
        _admitted(keyring, "a")


async def test_a_store_that_goes_back_to_before_a_revocation_revives_no_key() -> None:
    world = _World()
    keyring = world.keyring()
    watch = _watch_of(keyring)
    await world.store.put("a", Versioned(NOW_MS, A))
    await watch.refresh_from_store()
    await world.store.put("a", Versioned(NOW_MS + 1, None))
    await watch.refresh_from_store()

    world.store.forget()
    await world.store.put("a", Versioned(NOW_MS, A))
    await watch.refresh_from_store()

    assert (await world.store.all())["a"].value is None
    assert keyring.table.known() == []


async def test_keys_still_count_while_the_store_is_away_and_expire_none_the_less() -> None:
    world = _World()
    keyring = world.keyring()
    watch = _watch_of(keyring)
    await world.store.put("a", Versioned(NOW_MS, a_key("a", expires_ms=NOW_MS + 60_000)))
    await watch.refresh_from_store()

    world.store.is_down = True
    await watch.refresh_from_store()

    assert _admitted(keyring, "a") == "tenant-a"
    world.clock.now_ms += 60_000
    with pytest.raises(UnauthenticatedError, match="expired"):
        _admitted(keyring, "a")


async def test_a_store_that_never_answered_has_told_nothing() -> None:
    world = _World()
    world.store.is_down = True
    keyring = world.keyring()

    await _watch_of(keyring).refresh_from_store()

    with pytest.raises(QueueUnavailableError):
        keyring.gate.admit({}, time_remaining_s=None)


async def test_a_record_that_cannot_be_read_changes_nothing() -> None:
    world = _World()
    keyring = world.keyring()
    watch = _watch_of(keyring)
    await world.store.put("a", Versioned(NOW_MS, A))
    await watch.refresh_from_store()

    async def unreadable() -> dict[str, Versioned[ApiKey]]:
        raise ConfigurationError("of another version")

    world.store.all = unreadable  # type: ignore[method-assign]
    await watch.refresh_from_store()

    assert _admitted(keyring, "a") == "tenant-a"


async def test_started_it_knows_the_store_and_the_flags_at_once_and_ends_a_stream_by_itself(tmp_path: Path) -> None:
    world = _World(AccessRules(flag_keys=(B,)))
    await world.store.put("a", Versioned(NOW_MS, A))
    keyring = world.keyring()
    await keyring.start()

    caller = keyring.gate.admit(showing(a_secret("a")), time_remaining_s=None)
    with keyring.gate.watch(caller) as shut_out:
        await world.store.put("a", Versioned(NOW_MS + 1, None))
        error = await shut_out

    assert _admitted(keyring, "b") == "tenant-b"
    assert isinstance(error, UnauthenticatedError)
    await keyring.close()


async def test_a_change_made_here_counts_at_once() -> None:
    world = _World()
    keyring = world.keyring()
    await keyring.records.change("a", lambda _: A)

    keyring.take()

    assert _admitted(keyring, "a") == "tenant-a"


async def test_the_keys_file_counts_from_the_start_and_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text(f'{{"id": "a", "key": "{a_secret("a")}", "tenant": "t"}}\n')
    file.chmod(0o600)
    world = _World(AccessRules(keys_file=str(file)))
    keyring = world.keyring()
    watch = _watch_of(keyring, file)
    before = _admitted(keyring, "a")

    file.write_text(f'{{"id": "b", "key": "{a_secret("b")}"}}\n')
    await watch.refresh_from_file()
    await watch.refresh_from_file()

    assert before == "t"
    assert _admitted(keyring, "b") == "default"
    with pytest.raises(UnauthenticatedError, match="taken out of the keys file"):
        _admitted(keyring, "a")


def test_a_broken_keys_file_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys.jsonl").write_text("{}\n")

    with pytest.raises(ConfigurationError, match="line 1: id is ''"):
        _World(AccessRules(keys_file=str(tmp_path / "keys.jsonl"))).keyring()
