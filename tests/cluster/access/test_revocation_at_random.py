"""Whatever a store forgets and whoever looks at it when: a revocation that a living router knows of stays."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.key_table import KeyTable
from shardline_cluster.errors import UnauthenticatedError
from shardline_cluster.fleet.remembered_records import RememberedRecords
from shardline_cluster.fleet.versioned_records import Versioned, next_revision
from tests.cluster.access.known_keys import NOW_MS, a_key

KEYS = tuple(a_key(name) for name in ("a", "b"))
NUM_ROUTERS = 2

Records = dict[str, Versioned[ApiKey]]


@dataclass(slots=True)
class _Router:
    """One router's memory of keys, and which of them it has been told are revoked."""

    remembered: RememberedRecords[ApiKey] = field(default_factory=RememberedRecords)
    table: KeyTable = field(default_factory=KeyTable)
    revoked: set[str] = field(default_factory=set)  # digests

    def look(self, store: Records) -> None:
        """Reads the store and puts back what it lacks."""
        store.update(self.remembered.merge(store, now_ms=NOW_MS))
        self._take()

    def change(self, store: Records, key: ApiKey, value: ApiKey | None) -> None:
        """Makes or revokes a key, as the Admin service of this router does: after a look."""
        self.look(store)
        before = self.remembered.records.get(key.id, Versioned(0, None))
        store[key.id] = Versioned(next_revision(before.revision, NOW_MS), value)
        self.look(store)

    def admits(self, key: ApiKey) -> bool:
        try:
            return self.table.find(key.digest, NOW_MS) is not None
        except UnauthenticatedError:
            return False

    def _take(self) -> None:
        self.table.give_records(self.remembered.records)
        deleted = {name for name, record in self.remembered.records.items() if record.value is None}
        self.revoked |= {key.digest for key in KEYS if key.id in deleted}


class _World:
    def __init__(self) -> None:
        self.store: Records = {}
        self.earlier: list[Records] = [{}]
        self.routers = [_Router() for _ in range(NUM_ROUTERS)]
        self.made: set[str] = set()

    def create(self, router: int, key: int) -> None:
        if KEYS[key].id not in self.made:  # ids are drawn, so none comes twice
            self.made.add(KEYS[key].id)
            self.routers[router].change(self.store, KEYS[key], KEYS[key])
            self.earlier.append(dict(self.store))

    def revoke(self, router: int, key: int) -> None:
        if KEYS[key].id in self.routers[router].remembered.values:
            self.routers[router].change(self.store, KEYS[key], None)
            self.earlier.append(dict(self.store))

    def look(self, router: int, _: int) -> None:
        self.routers[router].look(self.store)

    def go_back(self, steps: int, _: int) -> None:
        """The server comes back as it was some changes ago."""
        self.store = dict(self.earlier[max(0, len(self.earlier) - 1 - steps * 2)])

    def forget(self, _router: int, _key: int) -> None:
        self.store = {}


STEPS: tuple[Callable[[_World, int, int], None], ...] = (
    _World.create,
    _World.revoke,
    _World.look,
    _World.go_back,
    _World.forget,
)


A_STEP = st.tuples(st.sampled_from(STEPS), st.integers(0, NUM_ROUTERS - 1), st.integers(0, len(KEYS) - 1))


@given(st.lists(A_STEP, min_size=10, max_size=40))
def test_a_revocation_that_somebody_knows_of_stays_and_a_living_key_comes_back(
    steps: list[tuple[Callable[[_World, int, int], None], int, int]],
) -> None:
    world = _World()
    for step, first, second in steps:
        step(world, first, second)
        for seen in world.routers:
            assert not any(seen.admits(key) for key in KEYS if key.digest in seen.revoked)

    for router in (*world.routers, *world.routers):
        router.look(world.store)

    revoked = set[str]().union(*(router.revoked for router in world.routers))
    for router in world.routers:
        assert {key.id for key in KEYS if router.admits(key)} == {
            key.id for key in KEYS if key.id in world.made and key.digest not in revoked
        }
