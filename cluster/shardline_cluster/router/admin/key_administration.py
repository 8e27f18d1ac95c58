"""Keys as operators make, list, change and revoke them: the core under the Admin service.

Knows no transport: it takes and gives the messages of `shardline.v1` and raises ShardlineErrors. What it writes counts
at this router at once, and at the others with their next look at the store.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from google.protobuf.duration_pb2 import Duration

from shardline_cluster.access.api_key import ApiKey, KeyLimits, Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.key_fields import label_of, limit_of, scopes_of, tenant_of
from shardline_cluster.access.key_secret import digest_of, new_key_id, new_secret
from shardline_cluster.access.key_table import KeySource, KnownKey, is_expired
from shardline_cluster.access.keyring import Keyring
from shardline_cluster.errors import SHOWN_CHARACTERS, KeyNotChangedError, UnknownKeyError
from shardline_cluster.router.admission.field_checks import check_no_unknown_fields, invalid
from shardline_cluster.router.protobuf_times import timestamp_of
from shardline_protos import admin_pb2 as pb

log = logging.getLogger(__name__)

MAX_EXPIRES_S = 100 * 366 * 24 * 3600
_REMEDY = {
    KeySource.FILE: "change its line in the file of --api-keys-file, which is read again by itself",
    KeySource.FLAG: "start the routers with other keys",
}


class KeyAdministration:
    """Over one router's keys."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._now_ms = keyring.now_ms

    async def create(self, request: pb.CreateKeyRequest, caller: Caller) -> pb.CreateKeyResponse:
        """Makes a key, and tells its secret, which nobody will know again.

        Raises:
            InvalidRequestError: a field is wrong.
            KeyNotChangedError: it would be the first key, and could make no other.
            QueueUnavailableError: no answer came. There may be a key now whose secret nobody knows.
        """
        check_no_unknown_fields(request)
        key_id = new_key_id()
        secret = new_secret(key_id)
        key = self._key_of(request, key_id, digest_of(secret))
        await self._refresh()
        if Scope.ADMIN not in key.scopes and not self._has_admin():
            raise KeyNotChangedError(
                "this would be the first key: from then on every call needs one, and this one could make no other. "
                "Make one with the scope admin first"
            )
        await self._keyring.records.change(key_id, lambda _: key)
        self._keyring.take()
        log.info("the key %s of tenant %s was made by %s", key_id, key.tenant, _who(caller))
        return pb.CreateKeyResponse(key=key_message(KnownKey(key, KeySource.ADMIN)), secret=secret)

    async def list_keys(self, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        """All keys that are not revoked, those of flags and of the file too.

        Raises:
            QueueUnavailableError: no answer came.
        """
        check_no_unknown_fields(request)
        await self._refresh()
        return pb.ListKeysResponse(keys=[key_message(known) for known in self._keyring.table.known()])

    async def update(self, request: pb.UpdateKeyRequest, caller: Caller) -> pb.Key:
        """Changes limits, label or expiry; what was accepted before goes on under the old limits.

        Raises:
            InvalidRequestError: a field is wrong, or nothing is to be changed.
            UnknownKeyError: there is no such key.
            KeyNotChangedError: it is a key of a file or a flag.
            QueueUnavailableError: no answer came; it may have been changed.
        """
        check_no_unknown_fields(request)
        changes = self._changes_of(request)
        await self._refresh()
        self._refuse_given(request.id)

        def changed(before: ApiKey | None) -> ApiKey:
            if before is None:
                raise self._unknown(request.id)
            return changes(before)

        key = await self._keyring.records.change(request.id, changed)
        assert key is not None, "an update revokes no key"
        self._keyring.take()
        log.info("the key %s was changed by %s", key.id, _who(caller))
        return key_message(KnownKey(key, KeySource.ADMIN))

    async def revoke(self, request: pb.RevokeKeyRequest, caller: Caller) -> pb.RevokeKeyResponse:
        """Ends a key for good. Doing it again changes nothing.

        Raises:
            UnknownKeyError: there has never been such a key.
            KeyNotChangedError: it is a key of a file or a flag, or the last one that can make others.
            QueueUnavailableError: no answer came; it may have been revoked.
        """
        check_no_unknown_fields(request)
        await self._refresh()
        self._refuse_given(request.id)
        record = self._keyring.records.records.get(request.id)
        if record is None:
            raise self._unknown(request.id)
        if record.value is not None and not self._has_admin(without=request.id):
            raise KeyNotChangedError(
                f"the key {request.id} is the last one with the scope admin: without it nobody could make another one. "
                "Make its successor first"
            )
        await self._keyring.records.change(request.id, lambda _: None)
        self._keyring.take()
        log.info("the key %s was revoked by %s", request.id, _who(caller))
        return pb.RevokeKeyResponse()

    # --- pieces ------------------------------------------------------------------------------------------------------

    async def _refresh(self) -> None:
        await self._keyring.records.refresh()
        self._keyring.take()

    def _has_admin(self, *, without: str | None = None) -> bool:
        """Whether somebody can administrate, also without the store's key of this id."""
        now_ms = self._now_ms()
        return any(
            Scope.ADMIN in known.key.scopes and not is_expired(known.key, now_ms)
            for known in self._keyring.table.known()
            if known.source is not KeySource.ADMIN or known.key.id != without
        )

    def _refuse_given(self, key_id: str) -> None:
        """Refuses what only a file or a flag can change; the same id in the store goes first."""
        if key_id in self._keyring.records.records:
            return
        for known in self._keyring.table.known():
            if known.key.id == key_id:
                raise KeyNotChangedError(
                    f"the key {key_id} comes from a {known.source.value}, where this call does not reach: "
                    f"{_REMEDY[known.source]}"
                )

    def _unknown(self, key_id: str) -> UnknownKeyError:
        if key_id in self._keyring.records.records:
            return UnknownKeyError(f"the key {key_id} was revoked, which cannot be undone: make another one")
        if not key_id:
            return UnknownKeyError("id is empty: name a key, as `shardline keys list` does")
        return UnknownKeyError(f"there is no key {key_id[:SHOWN_CHARACTERS]!r}: `shardline keys list` names them")

    def _key_of(self, request: pb.CreateKeyRequest, key_id: str, digest: str) -> ApiKey:
        now_ms = self._now_ms()
        return ApiKey(
            id=key_id,
            digest=digest,
            tenant=tenant_of("tenant", request.tenant),
            scopes=scopes_of("scopes", request.scopes),
            limits=_limits_of(request.limits),
            label=label_of("label", request.label),
            created_ms=now_ms,
            expires_ms=now_ms + _period_ms(request.expires_in) if request.HasField("expires_in") else None,
        )

    def _changes_of(self, request: pb.UpdateKeyRequest) -> Callable[[ApiKey], ApiKey]:
        """What an update does to a key, checked."""
        limits = _limits_of(request.limits) if request.HasField("limits") else None
        label = label_of("label", request.label) if request.HasField("label") else None
        expires_ms = self._now_ms() + _period_ms(request.expires_in) if request.HasField("expires_in") else None
        if limits is None and label is None and expires_ms is None:
            raise invalid("limits", "is missing, as are label and expires_in", "set what is to be changed")

        def change(key: ApiKey) -> ApiKey:
            return replace(
                key,
                limits=key.limits if limits is None else limits,
                label=key.label if label is None else label,
                expires_ms=key.expires_ms if expires_ms is None else expires_ms,
            )

        return change


def key_message(known: KnownKey) -> pb.Key:
    """A key without its digest: whoever lists keys needs no means to test guesses."""
    key = known.key
    return pb.Key(
        id=key.id,
        tenant=key.tenant,
        scopes=sorted(scope.value for scope in key.scopes),
        limits=pb.Limits(
            requests_per_minute=key.limits.requests_per_minute, tokens_per_minute=key.limits.tokens_per_minute
        ),
        label=key.label,
        created=timestamp_of(key.created_ms) if key.created_ms else None,
        expires=timestamp_of(key.expires_ms) if key.expires_ms is not None else None,
        source=known.source.value,
    )


def _limits_of(limits: pb.Limits) -> KeyLimits:
    def bound(name: str) -> int | None:
        return limit_of(f"limits.{name}", getattr(limits, name) if limits.HasField(name) else None)

    return KeyLimits(requests_per_minute=bound("requests_per_minute"), tokens_per_minute=bound("tokens_per_minute"))


def _period_ms(period: Duration) -> int:
    seconds = period.seconds + period.nanos / 1e9
    if not 0 < seconds <= MAX_EXPIRES_S:
        raise invalid("expires_in", f"is {seconds:g} s", f"must be more than 0 s and at most {MAX_EXPIRES_S} s")
    return max(1, int(seconds * 1000))


def _who(caller: Caller) -> str:
    return f"the key {caller.key_id}" if caller.key_id else "a caller without a key"
