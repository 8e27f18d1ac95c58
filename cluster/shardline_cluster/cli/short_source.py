"""A model's source as people write it: the commit of a pinned one in seven digits."""

_COMMIT_DIGITS = 40
_SHOWN_DIGITS = 7


def short_source(source: str) -> str:
    """`hf:org/name@COMMIT:file` with a short commit, which names the same model to `shardline rm` and `show`."""
    before, at, after = source.partition("@")
    commit, colon, selection = after.partition(":")
    return f"{before}{at}{commit[:_SHOWN_DIGITS]}{colon}{selection}" if len(commit) == _COMMIT_DIGITS else source
