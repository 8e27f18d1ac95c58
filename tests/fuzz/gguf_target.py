"""GGUF files that lie: header, tensor directory and tokenizer data of a tiny model, read as far as they can be."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.models.gguf_config import GgufConfig
from shardline_workers.text.gguf_text import read_gguf_text
from shardline_workers.weights.tensor_source import GgufTensorSource
from tests.fuzz.bytes_mutation import EDGE_NUMBERS, mutated
from tests.fuzz.target import FuzzTarget
from tests.fuzz.trial_texts import try_tokenizer
from tests.workers.text.tiny_vocabulary import gguf_metadata

_ALIGNMENT = 32
_MOST_READ_WEIGHTS = 1 << 14
# Type of a pair → its struct code; 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

Pair = tuple[str, int, Any]  # key, type, value; of an array the value is (type of elements, elements)


def _llama_pairs() -> list[Pair]:
    numbers = {"context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 64}
    heads = {"attention.head_count": 2, "attention.head_count_kv": 1, "rope.dimension_count": 16}
    scaling = {"rope.freq_base": 1e4, "attention.layer_norm_rms_epsilon": 1e-5, "rope.scaling.factor": 2.0}
    return [
        ("general.architecture", _STRING, "llama"),
        ("general.alignment", 4, _ALIGNMENT),
        ("general.sampling.temp", 6, 0.5),
        *((f"llama.{key}", 4, value) for key, value in (numbers | heads).items()),
        *((f"llama.{key}", 6, value) for key, value in scaling.items()),
        ("llama.rope.scaling.type", _STRING, "linear"),
    ]


def _pair(key: str, value: Any) -> Pair:
    if isinstance(value, tuple):
        kind = _STRING if isinstance(value[0], str) else 6 if isinstance(value[0], float) else 5
        return key, _ARRAY, (kind, list(value))
    return key, _STRING if isinstance(value, str) else 7 if isinstance(value, bool) else 4, value


def _metadata_pairs(metadata: Mapping[str, Any]) -> list[Pair]:
    return [_pair(key, value) for key, value in metadata.items()]


def _sentencepiece_metadata() -> dict[str, Any]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁a", "ab", "<t>"]
    types = [2, 3, 3, *[6] * 256, 1, 1, 1, 1, 1, 4]
    scores = [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0, 0.0]
    names = {"model": "llama", "tokens": tuple(pieces), "scores": tuple(scores), "token_type": tuple(types)}
    numbers = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, "add_space_prefix": True}
    return {f"tokenizer.ggml.{key}": value for key, value in (names | numbers).items()}


_BYTE_LEVEL_PAIRS = _metadata_pairs(gguf_metadata())
_SENTENCEPIECE_PAIRS = _metadata_pairs(_sentencepiece_metadata())
# Most cases are about something else than a whole vocabulary, and a small one is quick.
_SMALL_PAIRS = _metadata_pairs(
    gguf_metadata(tokens=("<s>", "<|end|>", "a", "b", "ab", "Ġ"), token_type=(3, 3, 1, 1, 1, 4), merges=("a b",))
)
# Name, dimensions (fastest first), type, bytes.
_TENSORS: tuple[tuple[str, tuple[int, ...], int, int], ...] = (
    ("token_embd.weight", (32, 6), 0, 768),
    ("output_norm.weight", (32,), 0, 128),
    ("blk.0.attn_q.weight", (32, 32), 2, 576),
    ("blk.0.attn_k.weight", (32, 16), 8, 544),
    ("blk.0.ffn_down.weight", (256, 2), 12, 288),
    ("blk.0.ffn_up.weight", (256, 1), 14, 210),
    ("blk.0.attn_norm.weight", (32,), 30, 64),
)


class _LyingWriter:
    """Writes numbers and strings, now and then others than it was given."""

    def __init__(self, random: Random, *, rate: float) -> None:
        self._random = random
        self._rate = rate
        self._parts: list[bytes] = []

    def _lies(self) -> bool:
        return self._rate > 0 and self._random.random() < self._rate

    def number(self, code: str, value: int) -> None:
        width = struct.calcsize(f"<{code}")
        if self._lies():
            value = self._random.choice((*EDGE_NUMBERS, value + 1, value - 1, value * 2))
        self._parts.append((value % (1 << 8 * width)).to_bytes(width, "little"))

    def text(self, value: str) -> None:
        raw = value.encode("utf-8", "surrogatepass")
        if self._lies():
            raw = mutated(self._random, raw)
        self.number("Q", len(raw))
        self._parts.append(raw)

    def scalar(self, kind: int, value: Any) -> None:
        code = _SCALARS[kind]
        if self._lies():
            self._parts.append(self._random.randbytes(struct.calcsize(f"<{code}")))
        else:
            self._parts.append(struct.pack(f"<{code}", value))

    def raw(self, content: bytes) -> None:
        self._parts.append(content)

    def joined(self) -> bytes:
        return b"".join(self._parts)


def make_gguf(random: Random) -> bytes:
    """A file, honest but for some lies."""
    pairs = [*_llama_pairs(), *random.choices((_SMALL_PAIRS, _BYTE_LEVEL_PAIRS, _SENTENCEPIECE_PAIRS), (8, 1, 1))[0]]
    for _ in range(random.choice((0, 0, 1, 1, 2, 4))):
        _change_pairs(random, pairs)
    content = _written(random, pairs, _tensors(random))
    return mutated(random, content) if random.random() < 0.2 else content


def _change_pairs(random: Random, pairs: list[Pair]) -> None:
    if not pairs:
        return
    place = random.randrange(len(pairs))
    key, kind, value = pairs[place]
    match random.randrange(6):
        case 0:
            del pairs[place]
        case 1:
            pairs.append(pairs[place])
        case 2:
            pairs[place] = (random.choice(pairs)[0], kind, value)
        case 3:
            pairs[place] = (key, _STRING, random.choice(("", "gemma3", "qwen3", "llama", "qwen2", "\0", "é" * 400)))
        case 4 if kind == _ARRAY:
            pairs[place] = (key, kind, (value[0], _changed_elements(random, value[1])))
        case _:
            pairs[place] = _other_value(random, key)


def _other_value(random: Random, key: str) -> Pair:
    kind = random.choice((*_SCALARS, _ARRAY))
    if kind == _ARRAY:
        return key, _ARRAY, (4, [random.choice(EDGE_NUMBERS) % (1 << 32) for _ in range(random.randrange(4))])
    if kind in (6, 12):
        return key, kind, random.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30))
    if kind == 7:
        return key, kind, random.random() < 0.5
    bits = 8 * struct.calcsize(f"<{_SCALARS[kind]}")
    number = random.choice(EDGE_NUMBERS) % (1 << bits)
    return key, kind, number - (1 << bits) if _SCALARS[kind].islower() and number >> (bits - 1) else number


def _changed_elements(random: Random, elements: Sequence[Any]) -> list[Any]:
    changed = list(elements)
    place = random.randrange(len(changed)) if changed else 0
    match random.randrange(4):
        case 0:
            del changed[place:]
        case 1:
            changed += changed[place : place + 8]
        case 2 if changed:
            changed[place] = changed[random.randrange(len(changed))]
        case _ if changed and isinstance(changed[0], str):
            changed[place] = random.choice(("", " ", "a", "  a", "a b c", "\0", "<s>", "▁" * 300, "é"))
        case _ if changed:
            changed[place] = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 99))
    return changed


def _tensors(random: Random) -> list[tuple[str, tuple[int, ...], int, int]]:
    chosen = list(_TENSORS)
    if random.random() < 0.2:
        random.shuffle(chosen)
        del chosen[random.randrange(len(chosen)) :]
    if random.random() < 0.05:
        chosen.append(random.choice(_TENSORS))
    if random.random() < 0.1:
        place = random.randrange(len(chosen)) if chosen else 0
        dims = tuple(random.choice((0, 1, 32, 256, *EDGE_NUMBERS)) for _ in range(random.randrange(6)))
        chosen[place : place + 1] = [("x", dims, random.randrange(48), 64)]
    return chosen


def _written(random: Random, pairs: Sequence[Pair], tensors: Sequence[tuple[str, tuple[int, ...], int, int]]) -> bytes:
    rate = random.choice((0.0, 0.0, 0.0005, 0.002, 0.02))
    writer = _LyingWriter(random, rate=rate)
    writer.raw(b"GGUF")
    for code, number in (("I", 3), ("Q", len(tensors)), ("Q", len(pairs))):
        writer.number(code, number)
    for pair in pairs:
        _write_pair(writer, pair)
    offset = 0
    for name, dims, kind, num_bytes in tensors:
        _write_tensor(writer, name, dims, kind=kind, offset=offset)
        offset += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
    header = writer.joined()
    data = random.randbytes(offset) if random.random() < 0.5 else bytes(offset)
    return header + bytes(-len(header) % _ALIGNMENT) + data


def _write_pair(writer: _LyingWriter, pair: Pair) -> None:
    key, kind, value = pair
    writer.text(key)
    writer.number("I", kind)
    if kind == _STRING:
        writer.text(value)
    elif kind == _ARRAY:
        inner, elements = value
        writer.number("I", inner)
        writer.number("Q", len(elements))
        for element in elements:
            writer.text(element) if inner == _STRING else writer.scalar(inner, element)
    else:
        writer.scalar(kind, value)


def _write_tensor(writer: _LyingWriter, name: str, dims: Sequence[int], *, kind: int, offset: int) -> None:
    writer.text(name)
    writer.number("I", len(dims))
    for dim in dims:
        writer.number("Q", dim)
    writer.number("I", kind)
    writer.number("Q", offset)


def read_gguf(content: bytes, folder: Path) -> None:
    """Everything that a router and an engine read of such a file: header, text side, shape, numbers of tensors.

    Each of them is tried, whatever the one before it said.
    """
    path = folder / "model.gguf"
    path.write_bytes(content)
    refused: ModelFileError | None = None
    with GgufFile.open(path) as file:
        for read in (_read_shape, _read_tensors):
            try:
                read(file)
            except ModelFileError as error:
                refused = error
    text = read_gguf_text(path)
    try_tokenizer(text.tokenizer)
    if refused is not None:
        raise refused


def _read_shape(file: GgufFile) -> None:
    config = GgufConfig(file)
    config.decoder_shape(config.family())


def _read_tensors(file: GgufFile) -> None:
    source = GgufTensorSource(file)
    for name in file.tensors:
        stored = source.stored(name)
        assert len(stored.data) == file.tensors[name].num_bytes, "a tensor reaches beyond its file"
        num_weights = 1
        for dim in stored.shape:
            num_weights *= dim
        if 0 < num_weights <= _MOST_READ_WEIGHTS:
            with np.errstate(all="ignore"):  # random blocks hold scales that are no numbers
                source.numbers(name, stored)


GGUF = FuzzTarget(name="gguf", make=make_gguf, run=read_gguf, documented=(ModelFileError,))
