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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from shardline_workers.files.hub_choice import HubFile
from shardline_workers.files.hub_source import HubSource
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError

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
        known = _read(self.folder / _REVISIONS_NAME).get(revision)
        return known if isinstance(known, str) else None

    def remember_commit(self, revision: str, commit: str) -> None:
        """For a time when the hub cannot be asked."""
        path = self.folder / _REVISIONS_NAME
        known = _read(path)
        if known.get(revision) != commit:
            _write(path, known | {revision: commit})

    def whole_models(self, commit: str) -> list[HubRecord]:
        """Those of a commit that are here."""
        folders = sorted((self.folder / commit).glob("*/")) if (self.folder / commit).is_dir() else []
        return [record for folder in folders if (record := read_record(folder)) is not None]

    @contextmanager
    def lock(self, commit: str, selection: str, *, report: Callable[[str], None]) -> Iterator[None]:
        """Only one process brings a model; another one waits and finds it. The lock falls with its process."""
        folder = self.model_folder(commit, selection)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("another process fetches it: waiting for that one")
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
    match _read(folder / RECORD_NAME):
        case {
            "source": {"repository": str(repository), "revision": str(revision), "selection": str(selection)},
            "licence": str(licence),
            "files": [*entries],
        }:
            files = [_file(entry) for entry in entries]
        case _:
            return None
    whole = [file for file in files if file is not None and _has_size(folder / file.name, file.num_bytes)]
    source = HubSource(repository=repository, revision=revision, selection=selection)
    return HubRecord(source=source, files=tuple(whole), licence=licence) if len(whole) == len(files) else None


def repository_of(folder: Path) -> str:
    """The repository whose models lie in a folder below `hub_folder`."""
    return unquote(folder.name.replace("--", "%2F", 1))


def touch(folder: Path) -> None:
    """Notes that a model is used now; a cache that cannot be written keeps no such note."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def _file(entry: object) -> HubFile | None:
    match entry:
        case {"name": str(name), "bytes": int(num_bytes), "sha256": sha256, "git_sha1": git_sha1}:
            return HubFile(name=name, num_bytes=num_bytes, sha256=sha256, git_sha1=git_sha1)
    return None


def _read(path: Path) -> dict[str, Any]:
    """What we wrote there; nothing where it is gone or broken: then it is found out anew."""
    try:
        return dict(ModelFacts.read_json(path).values)
    except ModelFileError:
        return {}


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _write(path: Path, content: dict[str, Any]) -> None:
    """Written aside and renamed: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)
