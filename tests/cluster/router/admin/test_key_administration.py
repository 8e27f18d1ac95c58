"""Keys are made, listed, changed and revoked; what is wrong is told by field; nobody locks himself out."""

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, KeyLimits, Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.key_secret import digest_of
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.errors import (
    InvalidRequestError,
    KeyNotChangedError,
    QueueUnavailableError,
    UnauthenticatedError,
    UnknownKeyError,
)
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.versioned_records import Versioned
from shardline_cluster.router.admin.key_administration import KeyAdministration
from shardline_protos import admin_pb2 as pb
from tests.cluster.access.known_keys import NOW_MS, Clock, a_key, showing

OPERATOR = Caller(key_id="ops")
FLAG = a_key("flag-1", scopes=frozenset(Scope))


class _World:
    """A store with, unless told otherwise, one key of a flag that may do everything."""

    def __init__(self, *flag_keys: ApiKey) -> None:
        self.clock = Clock()
        self.store = MemoryRecordStore[ApiKey](now_ms=self.clock)
        self.rules = AccessRules(flag_keys=flag_keys)
        self.keyring, self.keys = self.router()

    def router(self) -> tuple[Keyring, KeyAdministration]:
        keyring = Keyring(self.rules, self.store, now_ms=self.clock)
        return keyring, KeyAdministration(keyring)

    async def create(self, **fields: Any) -> pb.CreateKeyResponse:
        return await self.keys.create(pb.CreateKeyRequest(**fields), OPERATOR)

    async def update(self, key_id: str, **fields: Any) -> pb.Key:
        return await self.keys.update(pb.UpdateKeyRequest(id=key_id, **fields), OPERATOR)

    async def revoke(self, key_id: str) -> pb.RevokeKeyResponse:
        return await self.keys.revoke(pb.RevokeKeyRequest(id=key_id), OPERATOR)

    async def listed(self) -> list[pb.Key]:
        return list((await self.keys.list_keys(pb.ListKeysRequest())).keys)

    def admit(self, secret: str) -> Caller:
        return self.keyring.gate.admit(showing(secret), time_remaining_s=None)


@pytest.fixture
def world() -> _World:
    return _World(FLAG)


async def test_a_new_key_counts_at_once_and_its_secret_is_kept_nowhere(world: _World) -> None:
    made = await world.create(
        tenant="shop",
        scopes=["generate"],
        limits=pb.Limits(requests_per_minute=5, tokens_per_minute=10**9),
        label="of the site",
        expires_in=Duration(seconds=60),
    )

    caller = world.admit(made.secret)
    assert (caller.tenant, caller.key_id, caller.scopes) == ("shop", made.key.id, frozenset({Scope.GENERATE}))
    assert caller.limits == KeyLimits(requests_per_minute=5, tokens_per_minute=10**9)
    (record,) = (await world.store.all()).values()
    assert record.value is not None and record.value.digest == digest_of(made.secret)
    assert made.secret not in repr(record)
    assert (made.key.created.ToMilliseconds(), made.key.expires.ToMilliseconds()) == (NOW_MS, NOW_MS + 60_000)
    assert made.key.source == "admin"


async def test_what_is_left_out_has_the_least(world: _World) -> None:
    made = await world.create()

    assert (made.key.tenant, list(made.key.scopes), made.key.label) == ("default", ["generate"], "")
    assert not made.key.HasField("expires")
    assert not made.key.limits.HasField("requests_per_minute") and not made.key.limits.HasField("tokens_per_minute")


async def test_keys_of_all_sources_are_listed_without_their_digests(world: _World) -> None:
    made = await world.create(tenant="shop")

    listed = await world.listed()

    assert {(key.id, key.source) for key in listed} == {(made.key.id, "admin"), ("flag-1", "flag")}
    assert FLAG.digest not in str(listed) and digest_of(made.secret) not in str(listed)


async def test_an_update_changes_what_it_names_and_leaves_the_rest(world: _World) -> None:
    made = await world.create(limits=pb.Limits(requests_per_minute=5), label="old", tenant="shop")

    relabelled = await world.update(made.key.id, label="new")
    unlimited = await world.update(made.key.id, limits=pb.Limits())
    expiring = await world.update(made.key.id, expires_in=Duration(nanos=1_000_000))

    assert (relabelled.label, relabelled.limits.requests_per_minute, relabelled.tenant) == ("new", 5, "shop")
    assert not unlimited.limits.HasField("requests_per_minute") and unlimited.label == "new"
    assert expiring.expires.ToMilliseconds() == NOW_MS + 1
    world.clock.now_ms += 1
    with pytest.raises(UnauthenticatedError, match="expired"):
        world.admit(made.secret)


async def test_an_expired_key_can_be_given_more_time(world: _World) -> None:
    made = await world.create(expires_in=Duration(seconds=1))
    world.clock.now_ms += 5_000

    await world.update(made.key.id, expires_in=Duration(seconds=60))

    assert world.admit(made.secret).key_id == made.key.id


async def test_a_revoked_key_counts_no_more_and_revoking_it_again_changes_nothing(world: _World) -> None:
    made = await world.create()
    await world.revoke(made.key.id)
    before = await world.store.all()

    await world.revoke(made.key.id)

    assert await world.store.all() == before
    with pytest.raises(UnauthenticatedError, match="revoked"):
        world.admit(made.secret)
    with pytest.raises(UnknownKeyError, match="was revoked, which cannot be undone"):
        await world.update(made.key.id, label="again")


async def test_another_router_learns_of_it(world: _World) -> None:
    made = await world.create()
    other, administration = world.router()
    await administration.list_keys(pb.ListKeysRequest())

    await world.revoke(made.key.id)
    await administration.list_keys(pb.ListKeysRequest())

    with pytest.raises(UnauthenticatedError, match="revoked"):
        other.gate.admit(showing(made.secret), time_remaining_s=None)


async def test_a_revocation_ends_the_streams_of_the_key(world: _World) -> None:
    made = await world.create()

    with world.keyring.gate.watch(world.admit(made.secret)) as shut_out:
        await world.revoke(made.key.id)

        assert shut_out.done()


@pytest.mark.parametrize("key_id", ["flag-1", "team"])
async def test_keys_of_flag_and_file_are_changed_where_they_stand(key_id: str) -> None:
    world = _World(FLAG, a_key("team"))

    for change in (world.update(key_id, label="x"), world.revoke(key_id)):
        with pytest.raises(KeyNotChangedError, match=f"the key {key_id} comes from a flag"):
            await change


@pytest.mark.parametrize(("key_id", "told"), [("", "id is empty"), ("nobody", "there is no key 'nobody'")])
async def test_a_key_that_does_not_exist_is_not_found(world: _World, key_id: str, told: str) -> None:
    for change in (world.update(key_id, label="x"), world.revoke(key_id)):
        with pytest.raises(UnknownKeyError, match=told):
            await change


# --- nobody locks himself out ----------------------------------------------------------------------------------------


async def test_the_first_key_can_make_others() -> None:
    world = _World()

    with pytest.raises(KeyNotChangedError, match="this would be the first key"):
        await world.create()
    assert await world.store.all() == {}
    first = await world.create(scopes=["admin"])
    second = await world.create()

    assert world.admit(first.secret).scopes == frozenset({Scope.ADMIN})
    assert world.admit(second.secret).scopes == frozenset({Scope.GENERATE})


async def test_the_last_key_that_can_make_others_is_revoked_after_its_successor() -> None:
    world = _World()
    first = await world.create(scopes=["admin"])
    await world.create(scopes=["admin"], expires_in=Duration(seconds=1))
    world.clock.now_ms += 1_000

    with pytest.raises(KeyNotChangedError, match=f"{first.key.id} is the last one with the scope admin"):
        await world.revoke(first.key.id)
    await world.create(scopes=["admin", "generate"])
    await world.revoke(first.key.id)

    with pytest.raises(UnauthenticatedError):
        world.admit(first.secret)


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tenant": "a b"}, "tenant is 'a b': must have 1 to 64 characters"),
        ({"tenant": "t" * 65}, "tenant is"),
        ({"tenant": "ä"}, "tenant is 'ä'"),
        ({"tenant": "a:b"}, "tenant is 'a:b'"),
        ({"scopes": ["generate", "root"]}, "scopes holds 'root': the scopes are generate and admin"),
        ({"scopes": [""]}, "scopes holds ''"),
        ({"limits": pb.Limits(requests_per_minute=0)}, "limits.requests_per_minute is 0: must be 1 to"),
        ({"limits": pb.Limits(tokens_per_minute=(1 << 64) - 1)}, "limits.tokens_per_minute is 18446744073709551615"),
        ({"label": "x" * 201}, "label has 201 characters: at most 200"),
        ({"label": "a\nb"}, "label is 'a\\nb': control characters"),
        ({"expires_in": Duration()}, "expires_in is 0 s: must be more than 0 s"),
        ({"expires_in": Duration(seconds=-1)}, "expires_in is -1 s"),
        ({"expires_in": Duration(seconds=1 << 40)}, "expires_in is 1.09951e+12 s"),
    ],
)
async def test_a_wrong_field_is_told_with_its_bound(world: _World, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        await world.create(**fields)

    assert told in str(raised.value)
    assert await world.store.all() == {}


async def test_an_update_of_nothing_is_refused(world: _World) -> None:
    made = await world.create()

    with pytest.raises(InvalidRequestError, match="set what is to be changed"):
        await world.update(made.key.id)


async def test_an_unknown_field_of_a_newer_client_is_refused(world: _World) -> None:
    request = pb.CreateKeyRequest()
    request.MergeFromString(b"\xf8\x07\x01")  # field 127

    with pytest.raises(InvalidRequestError, match="field number 127"):
        await world.keys.create(request, OPERATOR)


async def test_a_store_that_is_away_makes_no_key_that_only_one_router_knows(world: _World) -> None:
    world.store.is_down = True

    with pytest.raises(QueueUnavailableError):
        await world.create()

    assert [known.key.id for known in world.keyring.table.known()] == ["flag-1"]


async def test_two_who_change_one_key_at_once_lose_nothing(world: _World) -> None:
    made = await world.create()
    _, other = world.router()

    put = world.store.put
    overtaking: list[Callable[[], Any]] = [
        lambda: other.update(pb.UpdateKeyRequest(id=made.key.id, label="b"), OPERATOR)
    ]

    async def put_second(name: str, record: Versioned[ApiKey], *, known: int | None = None) -> Versioned[ApiKey]:
        if overtaking:
            await overtaking.pop()()
        return await put(name, record, known=known)

    world.store.put = put_second  # type: ignore[method-assign]
    key = await world.update(made.key.id, limits=pb.Limits(requests_per_minute=3))

    assert (key.label, key.limits.requests_per_minute) == ("b", 3)
