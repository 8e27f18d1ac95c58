"""One row of the table of wrong model files, and short ways to write the files."""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bad_input.tiny_model import write_tiny_model
from tests.workers.files.gguf_bytes import TensorInfo, gguf_bytes, pair
from tests.workers.text.tiny_vocabulary import ENTRIES, gguf_metadata

Make = Callable[[Path], Path]  # writes files into a folder; returns what a user would name


@dataclass(frozen=True, slots=True)
class Row:
    """What is wrong, the files, and what the refusal must name, each as it stands in it."""

    what: str
    make: Make
    field: str
    value: str
    bound: str
    remedy: str

    @property
    def told(self) -> tuple[str, ...]:
        """Everything that the message must contain."""
        return (self.field, self.value, self.bound, self.remedy)


# --- GGUF ------------------------------------------------------------------------------------------------------------

METADATA: Mapping[str, Any] = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    **gguf_metadata(),
}
EMBEDDING = TensorInfo("token_embd.weight", (32, len(ENTRIES)))
EMBEDDING_BYTES = 32 * len(ENTRIES) * 4


def gguf(changes: Mapping[str, Any] | None = None, **parts: Any) -> Make:
    """A GGUF file with other metadata (None leaves a key out), or with other parts, see `gguf_bytes`."""
    metadata = {key: value for key, value in {**METADATA, **(changes or {})}.items() if value is not None}
    pairs = [pair(key, list(value) if isinstance(value, tuple) else value) for key, value in metadata.items()]
    more_pairs = parts.pop("more_pairs", ())
    whole = {"tensors": [EMBEDDING], "data": bytes(EMBEDDING_BYTES), "pairs": [*pairs, *more_pairs]} | parts
    return gguf_of(gguf_bytes(**whole))


def gguf_of(content: bytes) -> Make:
    """A GGUF file of these very bytes."""

    def make(folder: Path) -> Path:
        path = folder / "model.gguf"
        path.write_bytes(content)
        return path

    return make


def cut(make: Make, keep: float) -> Make:
    """The first part of such a file."""

    def make_cut(folder: Path) -> Path:
        path = make(folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        return path

    return make_cut


def lying_pair(key: str, kind: int, content: bytes) -> bytes:
    """A pair of metadata of a type that its content does not have."""
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + content


# --- folders ---------------------------------------------------------------------------------------------------------


def folder_with(files: Mapping[str, bytes | str | None], **changes: Any) -> Make:
    """The tiny model's folder with some files in the place of its own (None: without), `changes` in config.json."""

    def make(folder: Path) -> Path:
        write_tiny_model(folder, changes=changes)
        for name, content in files.items():
            if content is None:
                (folder / name).unlink()
            else:
                (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return make


def config(**changes: Any) -> Make:
    """The tiny model with changes in its config.json."""
    return folder_with({}, **changes)


def quantised(method: str, **more: Any) -> Make:
    """The tiny model, said to be quantised."""
    return config(quantization_config={"quant_method": method, **more})


def safetensors(header: Any, *, data: bytes = b"", length: int | None = None) -> Make:
    """The tiny model with such a file of weights; a header that is no bytes becomes JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    content = struct.pack("<Q", len(raw) if length is None else length) + raw + data
    return folder_with({"model.safetensors": content})


def sparse_safetensors(length: int, *, file_bytes: int) -> Make:
    """The tiny model with weights whose header is said to have this length, in a file that is mostly a hole."""

    def make(folder: Path) -> Path:
        write_tiny_model(folder)
        with (folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", length))
            file.truncate(file_bytes)
        return folder

    return make


def tensor(begin: int, end: int, *, dtype: str = "F32", shape: Sequence[Any] = (2,)) -> dict[str, Any]:
    """What a header says of one tensor."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
