"""`shardline keys`: makes, lists, changes and revokes API keys, through the Admin service of a router."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.rate_limiter import LARGEST_LIMIT
from shardline_cluster.cli.admin_calls import AdminCalls, admin_calls
from shardline_cluster.cli.flags.number_flags import number_from
from shardline_cluster.cli.flags.period_flags import period_s
from shardline_cluster.cli.router_address import add_router_flags
from shardline_cluster.cli.text_table import table
from shardline_cluster.errors import ConfigurationError, UnknownKeyError
from shardline_protos import admin_pb2 as pb

NO_LIMIT = "none"
_LIMITS = ("requests_per_minute", "tokens_per_minute")

_DESCRIPTION = """\
Makes, lists, changes and revokes API keys. It needs a key with the scope admin itself, unless the cluster has none yet:
then the first key must have that scope, and from then on every call needs a key.
"""
_EPILOG = """\
examples:
  export SHARDLINE_API_KEY=$(shardline keys create --scope admin --scope generate --label "of the operators")
  shardline keys create --tenant shop --requests-per-minute 600 --expires-in 90d > shop.key
  shardline keys list
  shardline keys update 4k1m8zq0c7vd --tokens-per-minute 100000
  shardline keys revoke 4k1m8zq0c7vd

To rotate a key without a pause, create its successor, hand it out, and revoke the old one.
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command, its subcommands and their flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "keys",
        help="make, list, change and revoke API keys",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_create(actions)
    _add_list(actions)
    _add_update(actions)
    _add_revoke(actions)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Does what the subcommand says.

    Raises:
        ShardlineError: no router answers, or it refuses.
    """
    with admin_calls(arguments) as calls:
        arguments.do(calls, arguments)
    return 0


# --- flags -----------------------------------------------------------------------------------------------------------


def _add_create(actions: Any) -> None:
    parser = actions.add_parser(
        "create",
        help="make a key; it is printed once, alone on standard output",
        description="Makes a key and prints it, alone on standard output: nobody can look it up later.",
    )
    parser.set_defaults(do=_create)
    parser.add_argument(
        "--tenant",
        metavar="NAME",
        default="",
        help="whose key it is; tenants do not see each other's requests (default: `default`)",
    )
    parser.add_argument(
        "--scope",
        action="append",
        choices=[scope.value for scope in Scope],
        help="what it allows; may be repeated (default: generate)",
    )
    _add_limit_flags(parser, number_from(1, LARGEST_LIMIT, whole=True), "no limit")
    _add_expiry_flag(parser, "never")
    parser.add_argument("--label", metavar="TEXT", default="", help="a note for people")
    parser.add_argument("--json", action="store_true", help="print one JSON object, the key in `secret`")
    add_router_flags(parser)


def _add_list(actions: Any) -> None:
    parser = actions.add_parser("list", help="show all keys, without their secrets", description="Shows all keys.")
    parser.set_defaults(do=_list)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_router_flags(parser)


def _add_update(actions: Any) -> None:
    parser = actions.add_parser(
        "update", help="change limits, expiry or label of a key", description="Changes a key; what is left out stays."
    )
    parser.set_defaults(do=_update)
    parser.add_argument("id", metavar="ID", help="of the key, as `shardline keys list` shows it")
    _add_limit_flags(parser, _limit_or_none, f"stays; {NO_LIMIT} takes it off")
    _add_expiry_flag(parser, "stays")
    parser.add_argument("--label", metavar="TEXT", help="a note for people (default: stays)")
    parser.add_argument("--json", action="store_true", help="print the key as one JSON object")
    add_router_flags(parser)


def _add_revoke(actions: Any) -> None:
    parser = actions.add_parser(
        "revoke",
        help="end keys for good",
        description="Ends keys for good: their streams end within five seconds, their requests go on as on_disconnect "
        "says.",
    )
    parser.set_defaults(do=_revoke)
    parser.add_argument("id", metavar="ID", nargs="+", help="of a key, as `shardline keys list` shows it")
    add_router_flags(parser)


def _add_limit_flags(parser: argparse.ArgumentParser, kind: Any, default: str) -> None:
    parser.add_argument(
        "--requests-per-minute", metavar="N", type=kind, help=f"at all routers together (default: {default})"
    )
    parser.add_argument(
        "--tokens-per-minute", metavar="N", type=kind, help=f"of prompts and outputs (default: {default})"
    )


def _add_expiry_flag(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--expires-in", metavar="PERIOD", type=period_s, help=f"90s, 30m, 12h or 30d from now (default: {default})"
    )


def _limit_or_none(text: str) -> float | str:
    return NO_LIMIT if text == NO_LIMIT else number_from(1, LARGEST_LIMIT, whole=True)(text)


# --- actions ---------------------------------------------------------------------------------------------------------


def _create(calls: AdminCalls, arguments: argparse.Namespace) -> None:
    request = pb.CreateKeyRequest(
        tenant=arguments.tenant,
        scopes=arguments.scope or (),
        limits=pb.Limits(**{name: getattr(arguments, name) for name in _LIMITS}),
        label=arguments.label,
        expires_in=_duration(arguments.expires_in),
    )
    response = calls.call("CreateKey", request)
    if arguments.json:
        print(json.dumps({**key_as_json(response.key), "secret": response.secret}))
        return
    print(response.secret)
    print(f"shardline: made the key {_described(response.key)}. It is shown this one time only", file=sys.stderr)


def _list(calls: AdminCalls, arguments: argparse.Namespace) -> None:
    keys = calls.call("ListKeys", pb.ListKeysRequest()).keys
    if arguments.json:
        print(json.dumps({"keys": [key_as_json(key) for key in keys]}))
    else:
        print(render_keys(keys), end="")


def _update(calls: AdminCalls, arguments: argparse.Namespace) -> None:
    key = calls.call("UpdateKey", _update_request(calls, arguments))
    print(json.dumps(key_as_json(key)) if arguments.json else f"changed the key {_described(key)}")


def _update_request(calls: AdminCalls, arguments: argparse.Namespace) -> pb.UpdateKeyRequest:
    """Limits travel together, so one that is left out is asked for first."""
    given = {name: getattr(arguments, name) for name in _LIMITS if getattr(arguments, name) is not None}
    if not given and arguments.label is None and arguments.expires_in is None:
        raise ConfigurationError(
            "nothing is to be changed: give --requests-per-minute, --tokens-per-minute, --expires-in or --label"
        )
    limits = _limits_after(calls, arguments.id, given) if given else None
    return pb.UpdateKeyRequest(
        id=arguments.id, limits=limits, label=arguments.label, expires_in=_duration(arguments.expires_in)
    )


def _limits_after(calls: AdminCalls, key_id: str, given: dict[str, Any]) -> pb.Limits:
    for key in calls.call("ListKeys", pb.ListKeysRequest()).keys:
        if key.id == key_id:
            limits: pb.Limits = key.limits
            for name, value in given.items():
                limits.ClearField(name) if value == NO_LIMIT else setattr(limits, name, value)
            return limits
    raise UnknownKeyError(f"there is no key {key_id!r}: `shardline keys list` names them")


def _revoke(calls: AdminCalls, arguments: argparse.Namespace) -> None:
    for key_id in arguments.id:
        calls.call("RevokeKey", pb.RevokeKeyRequest(id=key_id))
        print(f"revoked the key {key_id}")


def _duration(seconds: int | None) -> Duration | None:
    return None if seconds is None else Duration(seconds=seconds)


# --- in words --------------------------------------------------------------------------------------------------------


def key_as_json(key: pb.Key) -> dict[str, Any]:
    """A key for programs. Instants are in ISO 8601; null is no limit, or never."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": list(key.scopes),
        **{name: getattr(key.limits, name) if key.limits.HasField(name) else None for name in _LIMITS},
        "label": key.label,
        "created": _instant(key.created) if key.HasField("created") else None,
        "expires": _instant(key.expires) if key.HasField("expires") else None,
        "source": key.source,
    }


def render_keys(keys: Sequence[pb.Key]) -> str:
    """A table for people."""
    if not keys:
        return "There are no keys: this cluster is open to its own machine, or to all with --allow-unauthenticated.\n"
    header = ("ID", "TENANT", "SCOPES", "REQUESTS/MIN", "TOKENS/MIN", "EXPIRES", "SOURCE", "LABEL")
    return table(header, [_cells(key) for key in keys])


def _cells(key: pb.Key) -> tuple[str, ...]:
    limits = [str(getattr(key.limits, name)) if key.limits.HasField(name) else "-" for name in _LIMITS]
    expires = _instant(key.expires) if key.HasField("expires") else "never"
    return (key.id, key.tenant, ",".join(key.scopes), *limits, expires, key.source, key.label)


def _described(key: pb.Key) -> str:
    until = f"expires at {_instant(key.expires)}" if key.HasField("expires") else "never expires"
    return f"{key.id} of the tenant {key.tenant}, for {' and '.join(key.scopes)}, which {until}"


def _instant(timestamp: Timestamp) -> str:
    return timestamp.ToDatetime().isoformat(timespec="seconds") + "Z"
