"""What all ranks of a gang can agree on. Pure."""

from collections.abc import Mapping, Sequence

from shardline_workers.gang.loaded_share import LoadedShare


def least_blocks(shares: Sequence[LoadedShare]) -> int:
    """Blocks of the KV cache that every rank has room for: tables of blocks are the same on all of them.

    Raises:
        ValueError: ranks do not have blocks of one size.
    """
    first = shares[0]
    for share in shares:
        if share.block_size != first.block_size:
            raise ValueError(
                f"{first.rank_name} has KV blocks of {first.block_size} tokens and {share.rank_name} of"
                f" {share.block_size}; set block_size, or give all ranks the same kernels"
            )
    return min(share.num_blocks for share in shares)


def shared_numerics(shares: Sequence[LoadedShare]) -> Mapping[str, str]:
    """All that results depend on, all ranks together. Stages may differ in what concerns their own weights only.

    Raises:
        ValueError: two ranks would compute in different ways; the text names both.
    """
    merged: dict[str, str] = {}
    owners: dict[str, LoadedShare] = {}
    for share in shares:
        for name, value in share.numerics.items():
            if merged.setdefault(name, value) != value:
                raise _differ(owners[name], share, name)
            owners.setdefault(name, share)
    first_of_stage: dict[int, LoadedShare] = {}
    for share in shares:
        first = first_of_stage.setdefault(share.position.stage, share)
        for name in sorted(first.numerics.keys() ^ share.numerics.keys()):
            raise _differ(first, share, name)
    return merged


def _differ(one: LoadedShare, other: LoadedShare, name: str) -> ValueError:
    first, second = (share.numerics.get(name, "nothing") for share in (one, other))
    return ValueError(
        f"{one.rank_name} and {other.rank_name} would compute in different ways: {name} is {first} on the first and"
        f" {second} on the second; run all ranks on machines of one kind, or set kernels, dtype and kv_cache_dtype (and"
        " SHARDLINE_INSTRUCTION_SET where instruction sets differ)"
    )
