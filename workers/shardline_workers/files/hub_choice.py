"""Which files of a repository make the model: a pure decision over a listing.

Safetensors go before GGUF where nothing is named, since they are what the authors publish. Pickle files (`.bin`, `.pt`)
are never taken: to read one is to run whatever program lies in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from shardline_workers.files.hub_source import HubSource
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import INDEX_NAME, SINGLE_NAME

_TEXT_NAMES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_SPLIT_GGUF = re.compile(r".*-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_MAX_TOLD = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository at a commit. Its sums are the hub's own word."""

    name: str  # relative to the repository, with / between folders
    num_bytes: int
    sha256: str | None = None  # of its content; None for small files, which git itself keeps
    git_sha1: str | None = None  # git's name of the content; of a large file it is that of a pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class HubChoice:
    """The files that are needed."""

    selection: str  # the GGUF file's name; empty for a folder of safetensors
    files: tuple[HubFile, ...]  # the small ones first

    @property
    def num_bytes(self) -> int:
        """Of all of them together."""
        return sum(file.num_bytes for file in self.files)


def choose_files(source: HubSource, files: Sequence[HubFile]) -> HubChoice:
    """The files of the model that `source` names, among all of its repository.

    Raises:
        ModelFileError: there is no model that can be read, or several; the text names them.
    """
    names = {file.name: file for file in files if _is_plain(file.name)}
    if source.selection:
        return _selected(source, names)
    if SINGLE_NAME in names or INDEX_NAME in names:
        return _folder(source, names)
    ggufs = sorted(name for name in names if _is_gguf(name))
    if len(ggufs) == 1:
        return _gguf(source, names[ggufs[0]])
    if ggufs:
        remedy = f"Name one: {source}:{_example(ggufs)}."
        raise _refusal(source, "several GGUF files", ggufs, bound="the name of one", remedy=remedy)
    raise _modelless(source, names)


def _selected(source: HubSource, names: dict[str, HubFile]) -> HubChoice:
    wanted = source.selection
    if wanted.lower().endswith(_PICKLES):
        raise _pickled(source, [wanted])
    if wanted in names and _is_gguf(wanted):
        return _gguf(source, names[wanted])
    ggufs = sorted(name for name in names if _is_gguf(name))
    matching = [name for name in ggufs if has_tag(name, wanted)]
    if len(matching) == 1:
        return _gguf(source, names[matching[0]])
    if matching:
        what, remedy = f"several GGUF files are {wanted}", "Give the whole name of one."
        raise _refusal(source, what, matching, bound="one", remedy=remedy)
    bound = "one of the repository's .gguf files"
    what, there = f"no GGUF file {wanted!r}", ggufs or sorted(names)
    raise _refusal(source, what, there, bound=bound, remedy="Check the spelling.")


def _folder(source: HubSource, names: dict[str, HubFile]) -> HubChoice:
    if "config.json" not in names:
        what, bound = "config.json is missing", "config.json beside the weights"
        raise _refusal(source, what, sorted(names), bound=bound, remedy="Take another repository of the model.")
    weights = [SINGLE_NAME] if SINGLE_NAME in names and INDEX_NAME not in names else _shards(names)
    texts = [name for name in (*_TEXT_NAMES, INDEX_NAME) if name in names]
    return HubChoice(selection="", files=tuple(names[name] for name in (*texts, *weights)))


def _shards(names: dict[str, HubFile]) -> list[str]:
    """All that an index can name: it is compared with them once it is here."""
    return sorted(name for name in names if _SHARD.fullmatch(name) or name == SINGLE_NAME)


def _gguf(source: HubSource, file: HubFile) -> HubChoice:
    if _SPLIT_GGUF.fullmatch(file.name):
        raise _refusal(
            source,
            "a GGUF file in several parts",
            [file.name],
            bound="one whole file: parts cannot be read yet",
            remedy="Take a file that is not split, or join the parts with llama.cpp's `llama-gguf-split --merge`.",
        )
    return HubChoice(selection=file.name, files=(file,))


def _is_gguf(name: str) -> bool:
    """Projectors of models that see (`mmproj`) are no language models."""
    return name.lower().endswith(".gguf") and not PurePosixPath(name).name.lower().startswith("mmproj")


def has_tag(name: str, tag: str) -> bool:
    """Whether a file's name ends in a type, as in `model-Q4_K_M.gguf` or `model.q4_k_m.gguf`."""
    return re.search(rf"(?:^|[-._/]){re.escape(tag.lower())}\.gguf$", name.lower()) is not None


def _is_plain(name: str) -> bool:
    """A path inside the folder: a listing must not lead out of it."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and name.isprintable() and "\\" not in name


def _example(ggufs: Sequence[str]) -> str:
    preferred = [name for name in ggufs if re.search(r"q4_k_m|q4_0|q8_0", name.lower())]
    return (preferred or ggufs)[0]


def _modelless(source: HubSource, names: dict[str, HubFile]) -> ModelFileError:
    if "adapter_config.json" in names:
        return _refusal(
            source,
            "a LoRA adapter, no model",
            sorted(names),
            bound="a whole model: adapters cannot be served yet",
            remedy="Merge the adapter into its model (PEFT's merge_and_unload) and give the folder of the result.",
        )
    pickles = sorted(name for name in names if name.lower().endswith(_PICKLES))
    if pickles:
        return _pickled(source, pickles)
    bound, remedy = f"{SINGLE_NAME}, {INDEX_NAME} or a .gguf file", "Take a repository of the model that has them."
    return _refusal(source, "no model in it", sorted(names), bound=bound, remedy=remedy)


def _pickled(source: HubSource, pickles: Sequence[str]) -> ModelFileError:
    return _refusal(
        source,
        "weights as a pickle, which is a program that runs when it is read",
        pickles,
        bound="safetensors or GGUF",
        remedy="Take a revision or a repository with model.safetensors; the hub's converter makes one "
        "(huggingface.co/spaces/safetensors/convert).",
    )


def _refusal(source: HubSource, what: str, there: Sequence[str], *, bound: str, remedy: str) -> ModelFileError:
    return ModelFileError.about(str(source), what, value=list(there[:_MAX_TOLD]), bound=bound, remedy=remedy)
