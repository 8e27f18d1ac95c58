"""A model of the Hugging Face hub: found in the cache, or brought there file by file and checked."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardline_workers.files.byte_size import shown_bytes
from shardline_workers.files.hub_cache import PARTIAL, HubCache, HubRecord, read_record, touch, write_record
from shardline_workers.files.hub_choice import HubChoice, HubFile, choose_files
from shardline_workers.files.hub_client import Hub, HubUnreachableError
from shardline_workers.files.hub_listing import HubListing
from shardline_workers.files.hub_source import HubSource
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import INDEX_NAME, weight_files

_SPARE_BYTES = 64 << 20  # left free on the disk beside the model


@dataclass(frozen=True, slots=True)
class HubModel:
    """One model in the cache."""

    source: HubSource  # pinned to a commit and, of several GGUF files, to one
    path: Path  # the .gguf file, or the folder


def hub_model(
    source: HubSource, *, cache_folder: Path, hub: Callable[[], Hub], offline: bool, report: Callable[[str], None]
) -> HubModel:
    """Finds the model that `source` names, and brings it where it is not here.

    A commit that is here needs no network. A branch or tag is asked for at the hub each time; where that does not
    answer, or with `offline`, it means what it meant the last time. `hub` is called only to ask.

    Raises:
        ModelFileError: no such model, or it cannot be fetched and is not here.
    """
    cache = HubCache.of(source, cache_folder)
    if source.is_pinned and (here := _here(cache, source, commit=source.revision)) is not None:
        return _used(here, report)
    if offline:
        return _used(_known(cache, source, why="--offline or HF_HUB_OFFLINE forbids to ask the hub"), report)
    try:
        listing = hub().listing(source)
    except HubUnreachableError as error:
        here = None if source.is_pinned else _here(cache, source, commit=cache.known_commit(source.revision))
        if here is None:
            raise
        report(f"{error} Taking what {source.revision} was before: {here.source}")
        return _used(here, report)
    return _used(_brought(cache, source, listing, hub=hub(), report=report), report)


def _used(model: HubModel, report: Callable[[str], None]) -> HubModel:
    report(f"{model.source} is in the cache: {model.path}")
    touch(model.path.parent if model.source.selection else model.path)
    return model


def _known(cache: HubCache, source: HubSource, *, why: str) -> HubModel:
    commit = source.revision if source.is_pinned else cache.known_commit(source.revision)
    here = _here(cache, source, commit=commit)
    if here is None:
        raise ModelFileError.because(
            str(source), f"it is not in the cache, and {why}", remedy=f"Fetch it first: `shardline pull {source}`."
        )
    return here


def _here(cache: HubCache, source: HubSource, *, commit: str | None) -> HubModel | None:
    """The model of a commit that the source means among those in the cache, by the same choice as at the hub."""
    records = [] if commit is None else cache.whole_models(commit)
    if not records:
        return None
    try:
        choice = choose_files(source, [file for record in records for file in record.files])
    except ModelFileError:
        return None
    found = [record for record in records if record.source.selection == choice.selection]
    return _model(cache, found[0]) if found else None


def _model(cache: HubCache, record: HubRecord) -> HubModel:
    source = record.source
    folder = cache.model_folder(source.revision, source.selection)
    return HubModel(source, folder / source.selection if source.selection else folder)


def _brought(
    cache: HubCache, source: HubSource, listing: HubListing, *, hub: Hub, report: Callable[[str], None]
) -> HubModel:
    choice = choose_files(source, listing.files)
    pinned = source.pinned(listing.commit, selection=choice.selection)
    final = cache.model_folder(listing.commit, choice.selection)
    try:
        with cache.lock(listing.commit, choice.selection, report=report):
            if not source.is_pinned:
                cache.remember_commit(source.revision, listing.commit)
            if read_record(final) is None:
                partial = final.with_name(final.name + PARTIAL)
                partial.mkdir(exist_ok=True)
                files = _bring(hub, pinned, choice, partial, report)
                record = HubRecord(source=pinned, files=files, licence=listing.licence)
                _publish(partial, final, record)
    except OSError as error:
        raise ModelFileError.about(
            str(source),
            "it cannot be stored",
            value=str(error),
            bound=f"a folder that can be written at {cache.folder}",
            remedy="Set XDG_CACHE_HOME to another folder.",
        ) from error
    return HubModel(pinned, final / choice.selection if choice.selection else final)


def _bring(
    hub: Hub, source: HubSource, choice: HubChoice, partial: Path, report: Callable[[str], None]
) -> tuple[HubFile, ...]:
    """Brings what is missing, the small files first, and returns what the model consists of."""
    _refuse_small_disk(source, choice, partial)
    report(f"fetching {source}: {len(choice.files)} files, {shown_bytes(choice.num_bytes)}")
    texts = [file for file in choice.files if not file.name.endswith(".safetensors")]
    weights = [file for file in choice.files if file.name.endswith(".safetensors")]
    for file in texts:
        _bring_file(hub, source, file, partial, report)
    needed = _indexed(source, weights, partial)
    for file in needed:
        _bring_file(hub, source, file, partial, report)
    return (*texts, *needed)


def _indexed(source: HubSource, weights: list[HubFile], partial: Path) -> list[HubFile]:
    """The shards that the index names: a repository may hold others, of the same weights in another dtype."""
    if not (partial / INDEX_NAME).is_file():
        return weights
    there = {file.name: file for file in weights}
    named = [path.name for path in weight_files(partial)]
    missing = [name for name in named if name not in there]
    if missing:
        raise ModelFileError.about(
            str(source),
            "shards are missing",
            value=missing,
            bound=f"all that {INDEX_NAME} names",
            remedy="Take another revision of the repository.",
        )
    return [there[name] for name in named]


def _bring_file(hub: Hub, source: HubSource, file: HubFile, partial: Path, report: Callable[[str], None]) -> None:
    final = partial / file.name
    if final.is_file() and final.stat().st_size == file.num_bytes:  # it was checked before it got this name
        return
    part = final.with_name(f"{final.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    come = part.stat().st_size if part.is_file() else 0
    going_on = f", going on at {shown_bytes(come)}" if come else ""
    report(f"fetching {file.name} ({shown_bytes(file.num_bytes)}{going_on})")
    hub.fetch(source, source.revision, file, part)
    part.replace(final)


def _publish(partial: Path, final: Path, record: HubRecord) -> None:
    """Gives the folder its name; what stood there was not whole."""
    write_record(partial, record)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _refuse_small_disk(source: HubSource, choice: HubChoice, partial: Path) -> None:
    come = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    missing = max(choice.num_bytes - come, 0)
    free = shutil.disk_usage(partial).free
    if missing + _SPARE_BYTES > free:
        raise ModelFileError.about(
            str(source),
            "no room for it",
            value=f"{shown_bytes(missing)} to come",
            bound=f"at most {shown_bytes(max(free - _SPARE_BYTES, 0))} at {partial.parent}",
            remedy="Free some space, or set XDG_CACHE_HOME to another disk.",
        )
