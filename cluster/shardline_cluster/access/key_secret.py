"""The secret of a key: how one is drawn, what of it is kept, and what one that a user brings must be like.

No message repeats a secret.
"""

import hashlib
import re
import secrets
import string

from shardline_cluster.errors import ConfigurationError

NUM_ID_CHARACTERS = 12
NUM_RANDOM_BYTES = 32  # 43 characters
MIN_CHARACTERS = 16  # of a key that a user brings; whoever takes fewer has typed a password, not drawn a key
MAX_CHARACTERS = 512  # proxies cut off long headers
_ID_ALPHABET = string.ascii_lowercase + string.digits
_PRINTABLE = re.compile(r"[!-+\--~]*")  # without the comma, which separates the keys of SHARDLINE_API_KEY


def new_key_id() -> str:
    """A public name that no other key has."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(NUM_ID_CHARACTERS))


def new_secret(key_id: str) -> str:
    """A key that nobody can guess. Its beginning tells people, and scanners for leaked secrets, what it is."""
    return f"sl-{key_id}-{secrets.token_urlsafe(NUM_RANDOM_BYTES)}"


def digest_of(secret: str) -> str:
    """What is kept in the place of a key. Looking a key up by it takes the same time for all wrong ones."""
    return hashlib.sha256(secret.encode(errors="backslashreplace")).hexdigest()


def check_secret(secret: str, *, where: str) -> str:
    """Returns a key that a user has brought, if it will do. `where` says which one it is.

    Raises:
        ConfigurationError: it is short, long, or holds characters that a header or a list cannot carry.
    """
    if not MIN_CHARACTERS <= len(secret) <= MAX_CHARACTERS:
        raise ConfigurationError(
            f"{where} has {len(secret)} characters, but a key must have {MIN_CHARACTERS} to {MAX_CHARACTERS}: "
            "draw one, with `openssl rand -hex 32` for instance"
        )
    if not _PRINTABLE.fullmatch(secret):
        raise ConfigurationError(
            f"{where} holds a space, a comma or a character that is not printable ASCII, which headers and lists of "
            "keys cannot carry: draw one of letters and digits, with `openssl rand -hex 32` for instance"
        )
    return secret
