"""Request ids: `LANE-` and 128 bits in hexadecimal, so that an id alone leads to its lane.

Without an idempotency key the bits are random. With one they are a function of what the client sent: a submission that
is repeated after the server forgot it, and a restore of the first one, then meet in one record.
"""

import hashlib
import re
import secrets

from shardline_cluster.errors import ConfigurationError, InvalidRequestError

ID_BITS = 128
_DIGITS = ID_BITS // 4
# Safe inside a Redis key and its hash tag, in a URL and in a file name.
_LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(rf"(?P<lane>{_LANE.pattern})-[0-9a-f]{{{_DIGITS}}}")


def draw_request_id(lane: str) -> str:
    """A new random id in `lane`."""
    return f"{check_lane(lane)}-{secrets.token_hex(ID_BITS // 8)}"


def derive_request_id(lane: str, tenant: str, key: str, body_digest: str) -> str:
    """The id of the request that `tenant` submits under an idempotency key with such a body."""
    digest = hashlib.sha256()
    for part in (tenant, key, body_digest):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return f"{check_lane(lane)}-{digest.hexdigest()[:_DIGITS]}"


def lane_of(request_id: str) -> str:
    """The lane in which a request lives; also checks an id that comes from outside.

    Raises:
        InvalidRequestError: this is no request id.
    """
    match = _ID.fullmatch(request_id)
    if match is None:
        raise InvalidRequestError(
            f"request_id is {request_id[:200]!r}, but must be a lane's name, a hyphen and {_DIGITS} hexadecimal "
            "digits, as the `accepted` event told it",
            field="request_id",
        )
    return match["lane"]


def check_lane(lane: str) -> str:
    """Returns a lane's name if it is a good one.

    Raises:
        ConfigurationError: the name cannot stand in a key.
    """
    if _LANE.fullmatch(lane) is None:
        raise ConfigurationError(
            f"the lane's name is {lane[:200]!r}, but must be 1 to 100 letters, digits, dots, hyphens and underscores, "
            "and begin with a letter or digit"
        )
    return lane
