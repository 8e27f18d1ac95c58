"""The models that lie below the cache folder's `models`, whole or in part: what they are called, and how to delete one.

It looks at names, sizes and times only. A folder's time of change is when its model was last used.
"""

import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from shardline_workers.files.hub_cache import (
    PARTIAL,
    HubCache,
    hub_folder,
    read_record,
    repository_of,
)
from shardline_workers.files.hub_choice import has_tag
from shardline_workers.files.hub_source import DEFAULT_REVISION, HUB_PREFIX, HubSource, parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import ALIASES, PACKAGE_PREFIX, ModelFiles, ModelKind, model_digest
from shardline_workers.files.packaged_model import SCRATCH_PREFIX, package_folder

_LOCK = ".lock"
_FEWEST_COMMIT_DIGITS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedModel:
    """One model, or a part of one that was not fetched to its end."""

    source: str  # names it everywhere; of a part maybe only its folder's name
    alias: str = ""
    folder: Path
    path: Path | None  # the .gguf file, or the folder; None for a part
    hub_source: HubSource | None = None  # pinned, of a model of the hub
    num_bytes: int
    used_at: float  # seconds since 1970
    licence: str = ""

    @property
    def name(self) -> str:
        """What a user would call it."""
        return self.alias or self.source

    @property
    def is_partial(self) -> bool:
        """Whether it cannot be used yet."""
        return self.path is None


def cached_models(cache_folder: Path) -> list[CachedModel]:
    """All of them, by name.

    Raises:
        OSError: the cache cannot be read.
    """
    models = [*_packaged(cache_folder), *_of_hub(cache_folder)]
    return sorted(models, key=lambda model: (model.is_partial, model.name))


def find_cached(asked: str, cache_folder: Path) -> list[CachedModel]:
    """Those that a user may mean: by alias, by source, or by a source of the hub that leaves revision or file out."""
    models = cached_models(cache_folder)
    meant = ALIASES.get(asked, asked)
    exact = [model for model in models if meant in (model.source, model.alias, model.folder.name)]
    if exact or not meant.startswith(HUB_PREFIX):
        return exact
    source = parse_hub_source(meant)
    return [model for model in models if _is_meant(source, model, cache_folder)]


def cached_files(model: CachedModel, path: Path, cache_folder: Path) -> ModelFiles:
    """The files of a whole model in the cache, as everything else knows them.

    Raises:
        ModelFileError: they cannot be read.
    """
    kind = ModelKind.GGUF if path.is_file() else ModelKind.FOLDER
    digest = model_digest(kind, path, cache_folder)
    return ModelFiles(source=model.name, kind=kind, path=path, digest=digest, pinned=model.source)


def delete_cached(model: CachedModel) -> None:
    """Deletes it, and the folders above that are empty then.

    Raises:
        ModelFileError: another process is fetching it.
        OSError: it cannot be deleted.
    """
    _refuse_while_fetched(model)
    shutil.rmtree(model.folder)
    _lock_file(model.folder).unlink(missing_ok=True)
    commit = model.folder.parent
    if commit.parent.parent.name != "hub":
        return
    if not any(commit.iterdir()):
        commit.rmdir()
    if not any(path.is_dir() for path in commit.parent.iterdir()):
        shutil.rmtree(commit.parent)


def _packaged(cache_folder: Path) -> Iterator[CachedModel]:
    aliases = {
        package_folder(source.removeprefix(PACKAGE_PREFIX), cache_folder): (alias, source)
        for alias, source in ALIASES.items()
        if source.startswith(PACKAGE_PREFIX)
    }
    for folder in _folders(cache_folder / "models"):
        if folder == hub_folder(cache_folder):
            continue
        alias, source = aliases.get(folder, ("", _package_source(folder.name)))
        yield _cached(folder, next(iter(sorted(folder.glob("*.gguf"))), None), source=source, alias=alias)


def _package_source(name: str) -> str:
    package, _, version = name.rpartition("-")
    is_part = name.startswith(SCRATCH_PREFIX) or "-and-" in name
    return name if is_part or not package else f"{PACKAGE_PREFIX}{package}=={version}"


def _of_hub(cache_folder: Path) -> Iterator[CachedModel]:
    for repository in _folders(hub_folder(cache_folder)):
        for commit in _folders(repository):
            for folder in _folders(commit):
                yield _hub_model(folder, repository_of(repository), commit.name)


def _hub_model(folder: Path, repository: str, commit: str) -> CachedModel:
    record = read_record(folder)
    if record is None:
        selection = folder.name.removesuffix(PARTIAL)
        pinned = HubSource(repository=repository, revision=commit, selection=_selection(selection))
        return _cached(folder, None, source=str(pinned), hub_source=pinned)
    path = folder / record.source.selection if record.source.selection else folder
    return _cached(folder, path, source=str(record.source), hub_source=record.source, licence=record.licence)


def _selection(name: str) -> str:
    return unquote(name) if name.lower().endswith(".gguf") else ""


def _cached(
    folder: Path,
    path: Path | None,
    *,
    source: str,
    alias: str = "",
    hub_source: HubSource | None = None,
    licence: str = "",
) -> CachedModel:
    return CachedModel(
        source=source,
        alias=alias,
        folder=folder,
        path=path,
        hub_source=hub_source,
        num_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        used_at=folder.stat().st_mtime,
        licence=licence,
    )


def _is_meant(source: HubSource, model: CachedModel, cache_folder: Path) -> bool:
    own = model.hub_source
    if own is None:
        return False
    known = HubCache.of(source, cache_folder).known_commit(source.revision)
    is_revision = source.revision == DEFAULT_REVISION or own.revision == known or _begins(own.revision, source.revision)
    is_selection = source.selection in ("", own.selection) or has_tag(own.selection, source.selection)
    return own.repository == source.repository and is_revision and is_selection


def _begins(commit: str, text: str) -> bool:
    """Whether a text is a commit as people write it."""
    return len(text) >= _FEWEST_COMMIT_DIGITS and commit.startswith(text)


def _refuse_while_fetched(model: CachedModel) -> None:
    lock = _lock_file(model.folder)
    if not lock.is_file():
        return
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ModelFileError.because(
                model.name, "another process is fetching it", remedy="Wait for its end, or stop it."
            ) from None


def _lock_file(folder: Path) -> Path:
    return folder.with_name(folder.name.removesuffix(PARTIAL) + _LOCK)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
