"""Records are put back where they were forgotten, and two who change one at a time lose nothing of each other."""

import asyncio

import pytest

from shardline_cluster.errors import ChangedMeanwhileError, InvalidRequestError
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.versioned_records import Versioned


async def test_what_a_store_forgot_is_put_back_deletions_too() -> None:
    store = MemoryRecordStore[str]()
    kept = KeptRecords(store)
    await kept.change("a", lambda _: "x")
    await kept.change("b", lambda _: "y")
    await kept.change("b", lambda _: None)
    before = await store.all()

    store.forget()
    await kept.refresh()

    assert await store.all() == before
    assert kept.values == {"a": "x"}


async def test_a_keeper_that_remembers_an_old_record_learns_of_its_deletion() -> None:
    store = MemoryRecordStore[str]()
    one, other = KeptRecords(store), KeptRecords(store)
    await one.change("a", lambda _: "x")
    await other.refresh()
    await one.change("a", lambda _: None)

    await other.refresh()

    assert other.values == {}


async def test_changes_made_at_one_time_are_made_one_after_the_other() -> None:
    store = MemoryRecordStore[int]()
    keepers = [KeptRecords(store) for _ in range(4)]
    await keepers[0].change("n", lambda _: 0)

    await asyncio.gather(*(keeper.change("n", lambda n: (n or 0) + 1) for keeper in keepers))

    await keepers[0].refresh()
    assert keepers[0].values == {"n": 4}


async def test_a_change_that_changes_nothing_writes_nothing() -> None:
    store = MemoryRecordStore[str]()
    kept = KeptRecords(store)
    await kept.change("a", lambda _: "x")
    before = await store.all()

    await kept.change("a", lambda _: "x")
    gone = await kept.change("never was", lambda _: None)

    assert await store.all() == before
    assert gone is None


async def test_a_change_that_is_refused_leaves_the_record() -> None:
    store = MemoryRecordStore[str]()
    kept = KeptRecords(store)
    await kept.change("a", lambda _: "x")

    def refuse(_: str | None) -> str:
        raise InvalidRequestError("no", field="name")

    with pytest.raises(InvalidRequestError):
        await kept.change("a", refuse)
    assert kept.values == {"a": "x"}


async def test_one_who_never_gets_his_turn_is_told_so() -> None:
    store = MemoryRecordStore[int]()

    class AlwaysAhead:
        async def put(self, name: str, record: Versioned[int], *, known: int | None = None) -> Versioned[int]:
            return await store.put(name, Versioned(record.revision + 1, (record.value or 0) + 100))

        all = store.all
        close = store.close

    with pytest.raises(ChangedMeanwhileError, match="'n' was changed by others 5 times"):
        await KeptRecords(AlwaysAhead()).change("n", lambda n: (n or 0) + 1)
