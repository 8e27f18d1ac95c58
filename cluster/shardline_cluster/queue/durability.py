"""How much of its last writes a Redis server may lose when it dies."""

from enum import Enum

from shardline_cluster.errors import ConfigurationError


class Durability(Enum):
    """The setting `--durability`."""

    NONE = "none"  # nothing is written to disk: whatever the server holds dies with it
    RELAXED = "relaxed"  # append-only file, synchronised every second: a power failure loses about two seconds
    STRICT = "strict"  # nothing that was acknowledged is lost; not supported yet


def parse_durability(text: str) -> Durability:
    """The setting of this name.

    Raises:
        ConfigurationError: there is none, or it is not supported yet.
    """
    try:
        durability = Durability(text)
    except ValueError:
        names = ", ".join(d.value for d in Durability)
        raise ConfigurationError(f"durability is {text!r}, but must be one of {names}") from None
    return check_supported(durability)


def check_supported(durability: Durability) -> Durability:
    """Refuses by name what does not exist yet: a promise that is not kept would be worse than none."""
    if durability is Durability.STRICT:
        raise ConfigurationError(
            "durability `strict` is not supported yet; `relaxed` loses at most about two seconds of writes, and only "
            "where the server's machine fails"
        )
    return durability
