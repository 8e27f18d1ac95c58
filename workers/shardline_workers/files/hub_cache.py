"""Where models of the hub lie, below the cache folder's `models`:

    hub/ORG--NAME/revisions.json           what branches and tags meant when they were last asked for
                  COMMIT/NAME/             one model, whole: its files, and what is known of them in .shardline.json
                  COMMIT/NAME.partial/     what has come so far of another one
                  COMMIT/NAME.lock         held by whoever brings it

NAME is that of the GGUF file, or `safetensors`. A folder gets its name when everything in it is there and was checked.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from shardline_workers.files.hub_choice import HubFile
from shardline_workers.files.hub_source import HubSource
from shardline_workers.files.model_facts import ModelFacts

FOLDER_NAME = "safetensors"
PARTIAL = ".partial"
RECORD_NAME = ".shardline.json"
_REVISIONS_NAME = "revisions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRecord:
    """What is known of a model in the cache beside its bytes."""

    source: HubSource  # pinned
    files: tuple[HubFile, ...]
    licence: str


@dataclass(frozen=True, slots=True)
class HubCache:
    """The models of one repository."""

    folder: Path

    @classmethod
    def of(cls, source: HubSource, cache_folder: Path) -> "HubCache":
        """That of a source's repository; it need not exist."""
        return cls(hub_folder(cache_folder) / quote(source.repository, safe="").replace("%2F", "--"))

    def model_folder(self, commit: str, selection: str) -> Path:
        """Where a whole model lies, or will."""
        return self.folder / commit / (quote(selection, safe=" ") or FOLDER_NAME)

    def known_commit(self, revision: str) -> str | None:
        """What the revision meant when it was last asked for."""
        return ModelFacts.read_json(self.folder / _REVISIONS_NAME).text(revision)

    def remember_commit(self, revision: str, commit: str) -> None:
        """For a time when the hub cannot be asked."""
        path = self.folder / _REVISIONS_NAME
        known = dict(ModelFacts.read_json(path).values)
        if known.get(revision) != commit:
            _write(path, known | {revision: commit})

    def whole_models(self, commit: str) -> list[HubRecord]:
        """Those of a commit that are here."""
        folders = sorted((self.folder / commit).glob("*/")) if (self.folder / commit).is_dir() else []
        return [record for folder in folders if (record := read_record(folder)) is not None]

    @contextmanager
    def lock(self, commit: str, selection: str) -> Iterator[None]:
        """Only one process brings a model; another one waits and finds it. The lock falls with its process."""
        folder = self.model_folder(commit, selection)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def hub_folder(cache_folder: Path) -> Path:
    """Where all repositories lie."""
    return cache_folder / "models" / "hub"


def write_record(folder: Path, record: HubRecord) -> None:
    """Lays what is known beside the files."""
    files = [
        {"name": file.name, "bytes": file.num_bytes, "sha256": file.sha256, "git_sha1": file.git_sha1}
        for file in record.files
    ]
    source = {
        "repository": record.source.repository,
        "revision": record.source.revision,
        "selection": record.source.selection,
    }
    _write(folder / RECORD_NAME, {"source": source, "licence": record.licence, "files": files})


def read_record(folder: Path) -> HubRecord | None:
    """What was written there; None where the folder is no whole model, or a file of it is gone or cut."""
    if folder.name.endswith(PARTIAL):
        return None
    match ModelFacts.read_json(folder / RECORD_NAME).values:
        case {"source": dict(source), "licence": str(licence), "files": [*files]}:
            pass
        case _:
            return None
    record = HubRecord(source=HubSource(**source), licence=licence, files=tuple(_file(entry) for entry in files))
    sizes = {file.name: file.num_bytes for file in record.files}
    is_whole = all(_has_size(folder / name, num_bytes) for name, num_bytes in sizes.items())
    return record if is_whole else None


def repository_of(folder: Path) -> str:
    """The repository whose models lie in a folder below `hub_folder`."""
    return unquote(folder.name.replace("--", "%2F", 1))


def touch(folder: Path) -> None:
    """Notes that a model is used now; a cache that cannot be written keeps no such note."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def _file(entry: Any) -> HubFile:
    return HubFile(
        name=str(entry["name"]),
        num_bytes=int(entry["bytes"]),
        sha256=entry.get("sha256"),
        git_sha1=entry.get("git_sha1"),
    )


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _write(path: Path, content: dict[str, Any]) -> None:
    """Written aside and renamed: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)
