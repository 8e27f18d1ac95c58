"""How a cluster's callers are told apart: what an operator says with flags, and what it must fit.

Travels in an environment variable, so it holds digests of keys and no secrets.
"""

from dataclasses import dataclass

from shardline_cluster.access.api_key import ApiKey
from shardline_cluster.access.loopback import is_loopback
from shardline_cluster.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRules:
    """Of one cluster. Checked at birth."""

    allow_unauthenticated: bool = False  # callers without a key may generate, as the default tenant
    require_api_key: bool = False  # keys are needed from the start, though none is given here
    flag_keys: tuple[ApiKey, ...] = ()  # of --api-key
    keys_file: str | None = None  # absolute path

    def __post_init__(self) -> None:
        if self.allow_unauthenticated and self.require_api_key:
            raise ConfigurationError(
                "--allow-unauthenticated lets callers in without a key, and --require-api-key does not: leave one of "
                "them out"
            )

    @property
    def keys_required(self) -> bool:
        """Whether nobody comes in without a key, whatever keys there may be."""
        return not self.allow_unauthenticated and self._keys_meant

    def check_host(self, host: str) -> None:
        """Refuses to let strangers in by mistake.

        Raises:
            ConfigurationError: other machines reach this host, and nothing says how they are told apart.
        """
        if is_loopback(host) or self.allow_unauthenticated or self._keys_meant:
            return
        raise ConfigurationError(
            f"--host {host} can be reached by other machines, and no key is asked for: everybody there could use the "
            "models. Give a key (--api-key, better its variable SHARDLINE_API_KEY, or --api-keys-file), or say "
            "--require-api-key where an external Redis holds keys already, or listen on 127.0.0.1, or say "
            "--allow-unauthenticated where the network itself keeps strangers out"
        )

    @property
    def _keys_meant(self) -> bool:
        return self.require_api_key or bool(self.flag_keys) or self.keys_file is not None
