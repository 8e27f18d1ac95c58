"""The Hugging Face hub through its own library: what a repository holds, and one file of it. Errors in our words.

The library is an optional package and imported only where something is to be fetched: what is in the cache needs none.
"""

import errno
import hashlib
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.hub_choice import HubFile
from shardline_workers.files.hub_listing import HubListing
from shardline_workers.files.hub_source import HubSource
from shardline_workers.files.model_file_error import ModelFileError

PACKAGE = "huggingface_hub"
_TIMEOUT_S = 20.0
_MAX_LISTED_FILES = 100_000
_MAX_BROKEN_READS = 5  # connections that broke without bringing a byte
_REPORT_EVERY_BYTES = 100_000_000
_COPY_BYTES = 4 << 20


class HubUnreachableError(ModelFileError):
    """The hub did not answer: what the cache holds may do."""


class Hub(Protocol):
    """A hub, or what stands for it in a test."""

    def listing(self, source: HubSource) -> HubListing:
        """What lies there at the source's revision.

        Raises:
            HubUnreachableError: no answer.
            ModelFileError: no such repository or revision, or no right to see it.
        """
        ...

    def fetch(self, source: HubSource, commit: str, file: HubFile, part: Path) -> None:
        """Brings one file into `part`, going on behind what lies there, and checks its sums.

        Raises:
            ModelFileError: it cannot be had; `part` keeps what came, unless it is wrong.
        """
        ...


class HuggingFaceHub:
    """The hub at $HF_ENDPOINT, with the token of $HF_TOKEN or of `hf auth login`. Implements `Hub`."""

    def __init__(self, *, report: Callable[[str], None], bars: bool, endpoint: str | None = None) -> None:
        """`bars`: whether somebody looks at standard error; otherwise `report` hears of every 100 MB.

        Raises:
            ModelFileError: its library is not installed.
        """
        if importlib.util.find_spec(PACKAGE) is None:
            raise ModelFileError.because(
                "hf:",
                f"a model of the Hugging Face hub needs the package {PACKAGE}, which is not installed",
                remedy="`pip install 'shardline[hub]'` brings it.",
            )
        self._report = report
        self._bars = bars
        self._endpoint = endpoint

    def listing(self, source: HubSource) -> HubListing:
        """See `Hub.listing`."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint, library_name="shardline")
        try:
            info = api.model_info(source.repository, revision=source.revision, files_metadata=True, timeout=_TIMEOUT_S)
        except Exception as error:
            raise _in_our_words(error, source) from error
        files = tuple(_hub_file(sibling) for sibling in (info.siblings or ())[:_MAX_LISTED_FILES])
        return HubListing(commit=info.sha or "", files=files, licence=_licence(info))

    def fetch(self, source: HubSource, commit: str, file: HubFile, part: Path) -> None:
        """See `Hub.fetch`."""
        if part.is_file() and part.stat().st_size > file.num_bytes:
            part.unlink()
        broken = 0
        while True:
            before = _size(part)
            try:
                self._download(source, commit, file, part)
                break
            except Exception as error:
                broken = 0 if _size(part) > before else broken + 1
                if not _is_broken_read(error) or broken > _MAX_BROKEN_READS:
                    raise _in_our_words(error, source, file=file) from error
                self._report(f"the connection broke at {shown_bytes(_size(part))} of {file.name}: going on")
        check_sums(source, file, part)

    def _download(self, source: HubSource, commit: str, file: HubFile, part: Path) -> None:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers, tqdm  # type: ignore[attr-defined] # public, says its manual

        url = hf_hub_url(source.repository, file.name, revision=commit, endpoint=self._endpoint)
        progress: Any = tqdm if self._bars else partial(_ReportedProgress, file.name, self._report)
        with part.open("ab") as content:
            http_get(
                url,
                content,
                resume_size=content.tell(),
                headers=build_hf_headers(library_name="shardline"),
                expected_size=file.num_bytes,
                displayed_filename=file.name,
                tqdm_class=progress,
            )


class _ReportedProgress:
    """Stands for a progress bar where nobody looks at one: a line every 100 MB. It is called as the library does it."""

    def __init__(self, name: str, report: Callable[[str], None], *, total: int | None, initial: int, **_: Any) -> None:
        self._name = name
        self._report = report
        self._total = total
        self._done = initial
        self._told = initial

    def update(self, num_bytes: int) -> None:
        """So many more have come; fewer than none where the download begins anew."""
        self._done += num_bytes
        if self._done - self._told >= _REPORT_EVERY_BYTES:
            self._told = self._done
            of = f" of {shown_bytes(self._total)}" if self._total else ""
            self._report(f"{self._name}: {shown_bytes(self._done)}{of}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def check_sums(source: HubSource, file: HubFile, part: Path) -> None:
    """Compares what has come with the hub's word, and deletes what is wrong.

    Raises:
        ModelFileError: it is not what the hub has.
    """
    expected = file.sha256 or file.git_sha1
    found = _sha256(part) if file.sha256 is not None else _git_sha1(part)
    if _size(part) == file.num_bytes and expected in (None, found):
        return
    part.unlink(missing_ok=True)
    raise ModelFileError.about(
        str(source),
        f"the content of {file.name} is wrong, and was deleted",
        value=f"sum {found}",
        bound=f"{expected}, as the hub says",
        remedy="Fetch it again; if that ends so too, a proxy or a mirror on the way changes files.",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sha1(path: Path) -> str:
    """Git's name of a content: the SHA-1 of its kind, its size and itself. It guards against accidents, no attackers:
    for those there is TLS."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _hub_file(sibling: Any) -> HubFile:
    """A large file is described by its LFS pointer's own numbers."""
    if sibling.lfs is not None:
        return HubFile(name=sibling.rfilename, num_bytes=sibling.lfs.size, sha256=sibling.lfs.sha256)
    return HubFile(name=sibling.rfilename, num_bytes=sibling.size or 0, git_sha1=sibling.blob_id)


def _licence(info: Any) -> str:
    """What the model card says, else what the tags do."""
    card = getattr(info.card_data, "license", None) if info.card_data is not None else None
    tags = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    return card if isinstance(card, str) else next(iter(tags), "")


def _is_broken_read(error: Exception) -> bool:
    """A connection that was reset. After all other ways of breaking, the library itself goes on, several times."""
    import httpx2

    return isinstance(error, httpx2.ReadError)


def _in_our_words(error: Exception, source: HubSource, *, file: HubFile | None = None) -> ModelFileError:
    """What a user can do about an error of the library. It has many, and httpx's among them."""
    import httpx2
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            reason = "its authors give access on request only, and this token has none"
            remedy = "Ask for it on the model's page, then set HF_TOKEN to a token of that account."
        case errors.RepositoryNotFoundError():
            reason = "the hub has no such repository, or it is private and this token may not see it"
            remedy = "Check the spelling; for a private one set HF_TOKEN."
        case errors.RevisionNotFoundError():
            reason = f"the repository has no revision {source.revision!r}"
            remedy = "Name a branch, a tag or a whole commit that its page shows."
        case errors.HFValidationError():
            reason, remedy = str(error), "Copy the name from the model's page."
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            reason = f"the hub refused the token ({error.response.status_code})"
            remedy = "Set HF_TOKEN to a valid one, or unset it for public models."
        case errors.HfHubHTTPError() if error.response.status_code < 500 and error.response.status_code != 429:
            what = f" for {file.name}" if file is not None else ""
            reason, remedy = f"the hub answered {error.response.status_code}{what}", "Try again later."
        case OSError(errno=errno.ENOSPC):
            return ModelFileError.because(
                str(source), "the disk is full", remedy="Free some space, or set XDG_CACHE_HOME to another disk."
            )
        case errors.OfflineModeIsEnabled():
            return HubUnreachableError.because(
                str(source), "HF_HUB_OFFLINE is set", remedy="Unset it to download, or name a model that is here."
            )
        case httpx2.HTTPError() | OSError():
            return HubUnreachableError.because(
                str(source),
                f"the hub does not answer: {_first_line(error)}",
                remedy="Check the network, the proxy and HF_ENDPOINT; a download that broke off goes on the next time.",
            )
        case _:
            reason, remedy = f"{type(error).__name__}: {_first_line(error)}", "Try again."
    return ModelFileError.because(str(source), reason, remedy=remedy)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
