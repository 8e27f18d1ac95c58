"""Who is let in, as whom, and how those are told who are not."""

import asyncio
from typing import Any

import pytest

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import KeyLimits, Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.key_gate import KeyGate
from shardline_cluster.access.key_table import KeySource, KeyTable
from shardline_cluster.errors import QueueUnavailableError, UnauthenticatedError
from shardline_cluster.fleet.versioned_records import Versioned
from tests.cluster.access.known_keys import NOW_MS, Clock, a_key, a_secret, showing

A = a_key("a", scopes=frozenset({Scope.GENERATE}), limits=KeyLimits(requests_per_minute=3))
WITH_A = {"a": Versioned(1, A)}


class _World:
    def __init__(self, **rules: Any) -> None:
        self.clock = Clock()
        self.table = KeyTable()
        self.gate = KeyGate(AccessRules(**rules), self.table, now_ms=self.clock)

    def admit(self, metadata: dict[str, str] | None = None) -> Caller:
        return self.gate.admit(metadata or {}, time_remaining_s=7.0)


def _world(records: dict[str, Versioned[Any]] | None = None, **rules: Any) -> _World:
    world = _World(**rules)
    world.table.give_records(records or {})
    return world


# --- with a key ------------------------------------------------------------------------------------------------------


def test_a_key_gives_tenant_scopes_and_limits() -> None:
    caller = _world(WITH_A).admit(showing(a_secret("a")))

    assert (caller.tenant, caller.key_id, caller.scopes) == ("tenant-a", "a", frozenset({Scope.GENERATE}))
    assert (caller.limits.requests_per_minute, caller.time_remaining_s) == (3, 7.0)


@pytest.mark.parametrize("shown", ["Bearer {}", "bearer {}", "BEARER   {}", " Bearer {} "])
def test_the_scheme_is_read_as_http_reads_it(shown: str) -> None:
    assert _world(WITH_A).admit({"authorization": shown.format(a_secret("a"))}).key_id == "a"


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer ", "Basic {}", "{}"])
def test_what_is_no_bearer_says_how_to_show_a_key(shown: str) -> None:
    with pytest.raises(UnauthenticatedError, match="is not of the form `Bearer KEY`") as raised:
        _world(WITH_A).admit({"authorization": shown.format(a_secret("a"))})

    assert a_secret("a") not in str(raised.value)


@pytest.mark.parametrize("rules", [{}, {"allow_unauthenticated": True}, {"require_api_key": True}])
def test_a_wrong_key_is_refused_even_where_none_is_needed(rules: dict[str, bool]) -> None:
    with pytest.raises(UnauthenticatedError, match="is not known here") as raised:
        _world(WITH_A, **rules).admit(showing("sl-sesame-sesame"))

    assert "sesame" not in str(raised.value)


def test_a_key_that_is_shown_to_a_cluster_without_keys_is_told_so() -> None:
    with pytest.raises(UnauthenticatedError, match="this cluster has none"):
        _world().admit(showing(a_secret("a")))


def test_an_operator_who_requires_keys_and_has_none_is_told_how_to_get_one() -> None:
    with pytest.raises(UnauthenticatedError, match=r"has none yet.* --api-keys-file, and make others with it"):
        _world(require_api_key=True).admit(showing(a_secret("a")))


def test_a_revoked_key_is_refused_even_where_none_is_needed() -> None:
    world = _world(WITH_A, allow_unauthenticated=True)

    world.table.give_records({"a": Versioned(2, None)})

    with pytest.raises(UnauthenticatedError, match="the key a was revoked"):
        world.admit(showing(a_secret("a")))


def test_an_expired_key_is_refused() -> None:
    world = _world({"a": Versioned(1, a_key("a", expires_ms=NOW_MS + 10))})
    world.admit(showing(a_secret("a")))

    world.clock.now_ms += 10

    with pytest.raises(UnauthenticatedError, match="expired at"):
        world.admit(showing(a_secret("a")))


# --- without a key ---------------------------------------------------------------------------------------------------


def test_without_any_key_this_machine_may_do_everything() -> None:
    caller = _world().admit()

    assert (caller.tenant, caller.key_id, caller.scopes) == ("default", "", frozenset(Scope))


def test_as_soon_as_there_is_a_key_one_is_needed_and_stays_needed() -> None:
    world = _world()

    world.table.give_records(WITH_A)
    world.table.give_records({"a": Versioned(2, None)})

    with pytest.raises(UnauthenticatedError, match=r"no key was shown, .*authorization: Bearer KEY"):
        world.admit()


@pytest.mark.parametrize(
    "rules", [{"require_api_key": True}, {"flag_keys": (a_key("f"),)}, {"keys_file": "/etc/keys.jsonl"}]
)
def test_an_operator_who_speaks_of_keys_gets_no_callers_without(rules: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match="no key was shown"):
        _world(**rules).admit()


@pytest.mark.parametrize("records", [{}, WITH_A])
def test_whoever_is_let_in_without_a_key_may_generate_as_the_default_tenant_and_no_more(
    records: dict[str, Versioned[Any]],
) -> None:
    caller = _world(records, allow_unauthenticated=True).admit()

    assert (caller.tenant, caller.scopes) == ("default", frozenset({Scope.GENERATE}))


# --- before the store has answered -----------------------------------------------------------------------------------


def test_nobody_is_let_in_by_guess_before_the_store_has_answered() -> None:
    world = _World()

    for metadata in ({}, showing(a_secret("a"))):
        with pytest.raises(QueueUnavailableError, match="the keys are not known yet"):
            world.admit(metadata)


def test_given_keys_count_before_the_store_has_answered() -> None:
    world = _World(flag_keys=(A,))
    world.table.give(KeySource.FLAG, [A])

    caller = world.admit(showing(a_secret("a")))

    assert caller.key_id == "a"
    with pytest.raises(QueueUnavailableError):
        world.admit(showing(a_secret("b")))


def test_who_needs_no_key_needs_no_store() -> None:
    assert _World(allow_unauthenticated=True).admit().tenant == "default"


# --- watching --------------------------------------------------------------------------------------------------------


async def test_a_watch_ends_when_its_key_is_revoked_and_others_go_on() -> None:
    world = _world({**WITH_A, "b": Versioned(1, a_key("b"))})
    callers = [world.admit(showing(a_secret(name))) for name in ("a", "a", "b")]

    with (
        world.gate.watch(callers[0]) as one,
        world.gate.watch(callers[1]) as two,
        world.gate.watch(callers[2]) as other,
    ):
        world.table.give_records({"a": Versioned(2, None), "b": Versioned(1, a_key("b"))})
        world.gate.shut_out()
        world.gate.shut_out()

        assert (one.done(), two.done(), other.done()) == (True, True, False)
        assert "the key a was revoked" in str(one.result())
        assert one.result() is not two.result()


async def test_a_watch_ends_when_its_key_expires() -> None:
    world = _world({"a": Versioned(1, a_key("a", expires_ms=NOW_MS + 10))})

    with world.gate.watch(world.admit(showing(a_secret("a")))) as shut_out:
        world.gate.shut_out()
        assert not shut_out.done()
        world.clock.now_ms += 10
        world.gate.shut_out()

        assert isinstance(shut_out.result(), UnauthenticatedError)


async def test_a_key_that_was_revoked_between_the_door_and_the_watch_is_noticed() -> None:
    world = _world(WITH_A)
    caller = world.admit(showing(a_secret("a")))
    world.table.give_records({"a": Versioned(2, None)})

    with world.gate.watch(caller) as shut_out:
        assert shut_out.done()


async def test_whoever_came_without_a_key_stays() -> None:
    world = _world()

    with world.gate.watch(world.admit()) as shut_out:
        world.table.give_records(WITH_A)
        world.gate.shut_out()

        assert not shut_out.done()


async def test_another_secret_under_the_same_id_ends_the_streams_of_the_one_before() -> None:
    world = _World(keys_file="/etc/keys.jsonl")
    world.table.give(KeySource.FILE, [A])

    with world.gate.watch(world.admit(showing(a_secret("a")))) as shut_out:
        world.table.give(KeySource.FILE, [a_key("a", digest="00")])
        world.gate.shut_out()

        assert shut_out.done()


async def test_a_cancelled_watch_disturbs_nobody() -> None:
    world = _world(WITH_A)

    with world.gate.watch(world.admit(showing(a_secret("a")))) as one:
        one.cancel()
        with world.gate.watch(world.admit(showing(a_secret("a")))) as two:
            world.table.give_records({"a": Versioned(2, None)})
            world.gate.shut_out()
            assert two.done()
    with pytest.raises(asyncio.CancelledError):
        one.result()
