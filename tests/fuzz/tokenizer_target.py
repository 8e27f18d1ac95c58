"""Tokenizers from elsewhere: SentencePiece's own file, and the JSON files of a folder."""

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.folder_text import read_folder_text
from shardline_workers.text.sentencepiece_file import load_sentencepiece_tokenizer
from tests.fuzz.bytes_mutation import EDGE_NUMBERS, mutated
from tests.fuzz.json_mutation import json_bytes, mutated_json
from tests.fuzz.packed_files import pack_files, unpack_files
from tests.fuzz.target import FuzzTarget
from tests.fuzz.trial_texts import try_tokenizer
from tests.workers.text.tiny_vocabulary import bos_template, byte_level_json

_CONFIGS: dict[str, Any] = {
    "config.json": {"max_position_embeddings": 64, "vocab_size": 300, "eos_token_id": [1, 2]},
    "generation_config.json": {"eos_token_id": 1, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "min_p": 0.0},
    "tokenizer_config.json": {
        "bos_token": "<s>",
        "eos_token": {"content": "<|end|>", "special": True},
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}],
        "added_tokens_decoder": {"0": {"content": "<s>", "special": True}},
    },
}
_NAMES = ("tokenizer.json", *_CONFIGS)


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _piece(random: Random, text: str, score: float, kind: int, *, lies: bool) -> bytes:
    raw = text.encode()
    if lies:
        raw, kind = random.choice(((raw, random.choice(EDGE_NUMBERS)), (mutated(random, raw), kind), (b"", kind)))
        score = random.choice((score, float("nan"), float("inf"), -0.0))
    return _field(1, raw) + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)


def make_sentencepiece(random: Random) -> bytes:
    """A small tokenizer.model of the BPE kind."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<t>", 0.0, 4)]
    if random.random() < 0.3:
        pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [(text, -float(rank), 1) for rank, text in enumerate(("▁", "a", "b", "▁a", "ab", "▁ab", "1", "é"))]
    rate = random.choice((0.0, 0.02, 0.2))
    encoded = [_field(1, _piece(random, *piece, lies=random.random() < rate)) for piece in pieces]
    trainer = _field(2, b"\x18" + _varint(random.choice((2, 2, 2, 2, 2, 1, 3, 1 << 40))))
    normaliser = _field(3, b"\x18" + bytes([random.randrange(2)]) + b"\x20\x00")
    content = b"".join([*encoded, trainer, normaliser])
    return mutated(random, content) if random.random() < 0.5 else content


def read_sentencepiece(content: bytes, folder: Path) -> None:
    """Reads it and uses what comes of it."""
    path = folder / "tokenizer.model"
    path.write_bytes(content)
    specials = frozenset(("<t>", "</s>"))
    try_tokenizer(load_sentencepiece_tokenizer(path, bos_token="<s>", adds_bos=True, special_tokens=specials))


def make_text_folder(random: Random) -> bytes:
    """tokenizer.json and the configurations beside it; one or two of them lie."""
    tokenizer: Any = byte_level_json(post_processor=bos_template() if random.random() < 0.5 else None)
    files = {name: json.dumps(value).encode() for name, value in _CONFIGS.items()}
    files["tokenizer.json"] = json.dumps(tokenizer).encode()
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice((*_NAMES, "tokenizer.json"))
        value = tokenizer if name == "tokenizer.json" else _CONFIGS[name]
        files[name] = json_bytes(random, _mutated_tokenizer(random, value))
    if random.random() < 0.05:
        del files[random.choice(_NAMES)]
    return pack_files(files)


def _mutated_tokenizer(random: Random, value: Any) -> Any:
    """Half of the time outside the vocabulary, where most of a tokenizer.json's places are and little happens."""
    if "model" not in value or random.random() < 0.5:
        return mutated_json(random, value)
    small = {**value, "model": {**value["model"], "vocab": {}, "merges": []}}
    changed = mutated_json(random, small)
    if isinstance(changed, dict) and isinstance(changed.get("model"), dict) and changed["model"].get("vocab") == {}:
        changed["model"] = {**changed["model"], "vocab": value["model"]["vocab"], "merges": value["model"]["merges"]}
    return changed


def read_text_folder(content: bytes, folder: Path) -> None:
    """Reads the folder's text side and uses its tokenizer."""
    for name, file in unpack_files(content, _NAMES).items():
        if file is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(file)
    try_tokenizer(read_folder_text(folder).tokenizer)


SENTENCEPIECE = FuzzTarget(
    name="sentencepiece", make=make_sentencepiece, run=read_sentencepiece, documented=(ModelFileError,)
)
TEXT_FOLDER = FuzzTarget(
    name="tokenizer-json", make=make_text_folder, run=read_text_folder, documented=(ModelFileError,)
)
