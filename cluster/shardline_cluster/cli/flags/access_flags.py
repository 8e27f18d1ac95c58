"""The flags that say who may use what `shardline serve` serves."""

import argparse
from pathlib import Path
from typing import Any

from shardline_cluster.access.access_rules import AccessRules
from shardline_cluster.access.api_key import ApiKey, Scope
from shardline_cluster.access.caller import DEFAULT_TENANT
from shardline_cluster.access.key_secret import check_secret, digest_of
from shardline_cluster.access.keys_file_watch import KeysFileWatch
from shardline_cluster.errors import ConfigurationError


def add_access_flags(group: Any) -> None:
    """Adds them. A key is checked later than by argparse, which would repeat a wrong one."""
    group.add_argument(
        "--api-key",
        action="append",
        metavar="KEY",
        help="a key that clients may show, of at least 16 characters; it may do everything, as the tenant `default`; "
        "may be repeated; better in SHARDLINE_API_KEY, where commas separate several",
    )
    group.add_argument(
        "--api-keys-file",
        metavar="FILE",
        help="keys with tenants, scopes, limits and expiry, one JSON object a line (docs/security.md); read again "
        "whenever it changes",
    )
    group.add_argument(
        "--require-api-key",
        action="store_true",
        help="ask everybody for a key from the start, where an external Redis holds keys that `shardline keys` made",
    )
    group.add_argument(
        "--allow-unauthenticated",
        action="store_true",
        help="let callers without a key generate, as the tenant `default`, also from other machines",
    )


def access_rules(arguments: argparse.Namespace) -> AccessRules:
    """What the flags say.

    Raises:
        ConfigurationError: they contradict each other, or a key or the keys file is no good.
    """
    keys_file = None
    if arguments.api_keys_file is not None:
        keys_file = Path(arguments.api_keys_file).expanduser().absolute()
        KeysFileWatch(keys_file).read()  # so that a broken one is told here, before anything starts
    return AccessRules(
        allow_unauthenticated=arguments.allow_unauthenticated,
        require_api_key=arguments.require_api_key,
        flag_keys=_flag_keys(arguments.api_key or []),
        keys_file=None if keys_file is None else str(keys_file),
    )


def _flag_keys(secrets: list[str]) -> tuple[ApiKey, ...]:
    digests = [
        digest_of(check_secret(secret, where=f"--api-key: key {number} of {len(secrets)}"))
        for number, secret in enumerate(secrets, 1)
    ]
    if len(set(digests)) < len(digests):
        raise ConfigurationError("--api-key: a key is named twice, so leave one of them out")
    return tuple(
        ApiKey(id=f"flag-{number}", digest=digest, tenant=DEFAULT_TENANT, scopes=frozenset(Scope))
        for number, digest in enumerate(digests, 1)
    )
