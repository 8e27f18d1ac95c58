"""An API key as the cluster knows it: everything but the secret."""

from dataclasses import dataclass, field
from enum import Enum


class Scope(Enum):
    """What a key allows."""

    GENERATE = "generate"  # the model services: Generation, Open Inference
    ADMIN = "admin"  # everything, of all tenants' deployments, keys and usage; not their requests


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """Bounds for one key over all routers together. None: no bound."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # of prompt and output


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. It is found by `digest`; the secret itself is told once, when it is made, and kept nowhere."""

    id: str  # short and public: it stands in logs, lists and metrics
    # SHA-256 of the whole key in hexadecimal; keys are long and random, so no salt and no slow hash.
    digest: str = field(repr=False)
    tenant: str
    scopes: frozenset[Scope] = field(default_factory=lambda: frozenset({Scope.GENERATE}))
    limits: KeyLimits = field(default_factory=KeyLimits)
    label: str = ""  # for people
    created_ms: int = 0  # since 1970
    expires_ms: int | None = None
