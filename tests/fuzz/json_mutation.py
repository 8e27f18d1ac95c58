"""Changes to JSON values: something of another type, at an edge, missing, twice, or deeper than anybody expects."""

import json
from copy import deepcopy
from random import Random
from typing import Any

from tests.fuzz.bytes_mutation import EDGE_NUMBERS, mutated

_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    "",
    "\0",
    "é\ud800",
    "<s>",
    "{{ x }}",
    "A" * 300,
    "../../outside",
    [],
    {},
    [[]],
    [None],
    [0, 0],
    {"": ""},
    0,
    -1,
    -(2**63),
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("nan"),
    float("inf"),
    *EDGE_NUMBERS,
)


def mutated_json(random: Random, value: Any, *, most_edits: int = 3) -> Any:
    """A copy with a few random changes, each at a random place of the tree."""
    changed = [deepcopy(value)]
    for _ in range(random.randint(1, most_edits)):
        _edit(random, changed)
    return changed[0]


def odd_value(random: Random) -> Any:
    """A value that nobody asked for."""
    return deepcopy(random.choice(_ODD_VALUES))


def json_bytes(random: Random, value: Any) -> bytes:
    """The value as JSON, sometimes with its text damaged as well."""
    text = json.dumps(value)
    if random.random() < 0.02:
        key = random.choice(('"dtype"', '"shape"', '"a"'))
        text = text.replace("{", f"{{{key}: 1, {key}: 2, ", 1)
    if random.random() < 0.01:
        depth = random.choice((10, 1_000, 100_000))
        text = text.replace("0", "[" * depth + "]" * depth, 1)
    if random.random() < 0.01:
        text = text.replace("0", "1" * 5_000, 1)
    raw = text.encode()
    return mutated(random, raw) if random.random() < 0.1 else raw


def _edit(random: Random, tree: Any) -> None:
    parent, key = _random_place(random, tree)
    match random.randrange(6):
        case 0 if parent is not tree:
            del parent[key]
        case 1 if isinstance(parent, list) and parent is not tree:
            parent.insert(key, deepcopy(random.choice(parent)))
        case 2 if isinstance(parent, dict):
            parent[random.choice(("", "x", "__metadata__", key + "\n", key.upper()))] = deepcopy(parent[key])
        case 3 if isinstance(parent, dict) and len(parent) > 1:
            parent[key] = deepcopy(parent[random.choice(list(parent))])
        case _:
            parent[key] = odd_value(random)


def _random_place(random: Random, tree: Any) -> tuple[Any, Any]:
    """A container and a key in it; from the root downwards, stopping anywhere."""
    parent, key = tree, 0
    while True:
        inner = parent[key]
        if not isinstance(inner, dict | list) or not inner or (parent is not tree and random.random() < 0.3):
            return parent, key
        parent = inner
        key = random.choice(list(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
