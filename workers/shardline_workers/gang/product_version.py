"""Which version of the product this is."""

from importlib import metadata


def product_version() -> str:
    """Ranks and leader must be of one: what they say to each other changes with it."""
    try:
        return metadata.version("shardline")
    except metadata.PackageNotFoundError:
        return "a source tree"
