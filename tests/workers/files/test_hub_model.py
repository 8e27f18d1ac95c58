"""Against a hub of our own on this machine, through the real library."""

import errno
import json
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import file_download
from safetensors.numpy import save

from shardline_workers.files.hub_cache import HubCache
from shardline_workers.files.hub_client import HuggingFaceHub
from shardline_workers.files.hub_source import parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.model_source import Fetching, ModelFiles, ModelKind, resolve_model
from tests.workers.files.hub_server import COMMIT, HubServer, running
from tests.workers.files.wheels import TINY_GGUF

LARGE = TINY_GGUF + bytes(range(256)) * 4096  # about 1 MB
WEIGHTS = save({"w": np.zeros(3, np.float32)})


@pytest.fixture(autouse=True)
def hub_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token of this machine, no second between two tries, and pieces that are smaller than the files here."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running(HubServer({"tiny-Q4_0.gguf": LARGE, "README.md": b"# Tiny"})) as server:
        yield server


class Host:
    """A machine with a cache of its own."""

    def __init__(self, server: HubServer, cache: Path) -> None:
        self.server = server
        self.cache = cache
        self.lines: list[str] = []

    def resolved(self, source: str, *, offline: bool = False) -> ModelFiles:
        def hub() -> HuggingFaceHub:
            return HuggingFaceHub(report=self.lines.append, bars=False, endpoint=self.server.endpoint)

        fetching = Fetching(offline=offline, hub=hub)
        return resolve_model(source, cache_folder=self.cache, report=self.lines.append, fetching=fetching)


@pytest.fixture
def host(hub: HubServer, tmp_path: Path) -> Host:
    return Host(hub, tmp_path / "cache")


def test_a_gguf_file_is_fetched_and_pinned_to_its_commit(hub: HubServer, host: Host) -> None:
    files = host.resolved("hf:org/tiny")

    assert files.kind is ModelKind.GGUF
    assert files.path.read_bytes() == LARGE
    assert files.pinned == f"hf:org/tiny@{COMMIT}:tiny-Q4_0.gguf"
    assert [line for line in hub.log if "README" in line] == []


def test_another_host_takes_the_pinned_commit_whatever_the_branch_means_by_then(
    hub: HubServer, host: Host, tmp_path: Path
) -> None:
    pinned = host.resolved("hf:org/tiny@v1:Q4_0").pinned
    hub.revisions = ()

    files = Host(hub, tmp_path / "other").resolved(pinned)

    assert (files.path.read_bytes(), files.pinned) == (LARGE, pinned)


def test_what_is_pinned_and_here_asks_nobody(hub: HubServer, host: Host) -> None:
    pinned = host.resolved("hf:org/tiny").pinned
    hub.log.clear()

    host.resolved(pinned)

    assert hub.log == []


def test_a_folder_of_safetensors_has_all_that_its_index_names(hub: HubServer, host: Host) -> None:
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    hub.files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00001.safetensors": WEIGHTS,
        "model-00001-of-00002.safetensors": b"of another split",
    }

    files = host.resolved("hf:org/tiny")

    assert files.kind is ModelKind.FOLDER
    assert files.pinned == f"hf:org/tiny@{COMMIT}"
    assert sorted(path.name for path in files.path.glob("[!.]*")) == sorted(
        name for name in hub.files if name != "model-00001-of-00002.safetensors"
    )


def test_an_index_that_names_what_is_not_there_is_refused(hub: HubServer, host: Host) -> None:
    index = {"weight_map": {"w": "model-00002-of-00002.safetensors"}}
    hub.files = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode()}

    with pytest.raises(ModelFileError, match=r"shards are missing: found \['model-00002-of-00002"):
        host.resolved("hf:org/tiny")


def test_a_connection_that_is_closed_goes_on_where_it_stood(hub: HubServer, host: Host) -> None:
    hub.cuts = {"tiny-Q4_0.gguf": [300_000, 200_000]}

    files = host.resolved("hf:org/tiny")

    assert files.path.read_bytes() == LARGE
    assert hub.fetched("tiny-Q4_0.gguf") == ["", "bytes=300000-", "bytes=500000-"]


def test_a_connection_that_is_reset_goes_on_with_what_was_read(hub: HubServer, host: Host) -> None:
    hub.cuts, hub.resets = {"tiny-Q4_0.gguf": [900_000]}, True

    files = host.resolved("hf:org/tiny")

    assert files.path.read_bytes() == LARGE
    assert len(hub.fetched("tiny-Q4_0.gguf")) == 2


def test_a_download_that_was_given_up_goes_on_the_next_time(hub: HubServer, host: Host) -> None:
    hub.cuts = {"tiny-Q4_0.gguf": [400_000, *[0] * 10]}
    with pytest.raises(ModelFileError, match=r"the hub does not answer: .*goes on the next time"):
        host.resolved("hf:org/tiny")
    hub.cuts, hub.log = {}, []

    files = host.resolved("hf:org/tiny")

    assert files.path.read_bytes() == LARGE
    assert hub.fetched("tiny-Q4_0.gguf") == ["bytes=400000-"]
    assert any("going on at 400.0 kB" in line for line in host.lines)


@pytest.mark.parametrize(("name", "source"), [("tiny-Q4_0.gguf", "hf:org/tiny:Q4_0"), ("config.json", "hf:org/tiny")])
def test_wrong_bytes_are_refused_and_deleted(name: str, source: str, hub: HubServer, host: Host) -> None:
    hub.files |= {"config.json": b"{}", "model.safetensors": WEIGHTS}
    hub.sent_instead = {name: bytes(len(hub.files[name]))}

    with pytest.raises(ModelFileError, match=rf"the content of {name} is wrong, and was deleted: found 'sum"):
        host.resolved(source)

    assert [path for path in host.cache.rglob(f"{name}*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_part_of_wrong_bytes_from_before_is_found_out_and_fetched_anew(hub: HubServer, host: Host) -> None:
    hub.cuts = {"tiny-Q4_0.gguf": [400_000, *[0] * 10]}
    with pytest.raises(ModelFileError):
        host.resolved("hf:org/tiny")
    (part,) = host.cache.rglob("*.part")
    part.write_bytes(bytes(400_000))
    hub.cuts = {}

    with pytest.raises(ModelFileError, match="is wrong, and was deleted"):
        host.resolved("hf:org/tiny")

    assert host.resolved("hf:org/tiny").path.read_bytes() == LARGE


def test_a_file_that_was_cut_in_the_cache_is_fetched_again(hub: HubServer, host: Host) -> None:
    path = host.resolved("hf:org/tiny").path
    path.write_bytes(LARGE[:10])

    assert host.resolved("hf:org/tiny").path.read_bytes() == LARGE


def test_offline_takes_what_is_here_and_refuses_what_is_not(hub: HubServer, host: Host) -> None:
    with pytest.raises(ModelFileError, match=r"not in the cache, and --offline.*`shardline pull hf:org/tiny`"):
        host.resolved("hf:org/tiny", offline=True)
    online = host.resolved("hf:org/tiny")
    hub.log.clear()

    offline = host.resolved("hf:org/tiny:Q4_0", offline=True)

    assert (offline.path, offline.digest, offline.pinned) == (online.path, online.digest, online.pinned)
    assert hub.log == []


def test_the_hubs_own_variable_means_offline_too(hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ModelFileError, match="not in the cache"):
        host.resolved("hf:org/tiny")

    assert hub.log == []


def test_while_the_hub_is_down_a_branch_means_what_it_meant(hub: HubServer, host: Host) -> None:
    known = host.resolved("hf:org/tiny")
    hub.endpoint = "http://127.0.0.1:1"

    assert host.resolved("hf:org/tiny").path == known.path

    assert any("Taking what main was before" in line for line in host.lines)


def test_a_hub_that_is_down_is_told(hub: HubServer, host: Host) -> None:
    hub.endpoint = "http://127.0.0.1:1"

    with pytest.raises(ModelFileError, match=r"the hub does not answer.*HF_ENDPOINT"):
        host.resolved("hf:org/tiny")


@pytest.mark.parametrize(
    ("source", "refusal", "told"),
    [
        ("hf:org/other", None, "no such repository, or it is private"),
        ("hf:org/tiny@v9", None, "no revision 'v9'"),
        ("hf:org/tiny", (403, "GatedRepo"), "on request only.*HF_TOKEN"),
        ("hf:org/tiny", (403, ""), r"refused the token \(403\)"),
        ("hf:org/tiny", (418, ""), "the hub answered 418"),
        ("hf:org/tiny", (503, ""), "the hub does not answer: .*503"),
    ],
)
def test_what_the_hub_refuses_is_told_with_a_remedy(
    source: str, refusal: tuple[int, str] | None, told: str, hub: HubServer, host: Host
) -> None:
    hub.refusal = refusal

    with pytest.raises(ModelFileError, match=told):
        host.resolved(source)


def test_a_private_repository_is_read_with_a_token(hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    with pytest.raises(ModelFileError, match=r"private.*set HF_TOKEN") as error:
        host.resolved("hf:org/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    assert host.resolved("hf:org/tiny").path.read_bytes() == LARGE

    assert "hf_secret" not in f"{host.lines} {error.value}"


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(
    hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 64 << 20))

    with pytest.raises(ModelFileError, match=r"no room for it: found '1\.\d MB to come'.*XDG_CACHE_HOME"):
        host.resolved("hf:org/tiny")

    assert hub.fetched("tiny-Q4_0.gguf") == []


def test_without_the_hubs_library_the_package_is_named(
    hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.resolved("hf:org/tiny")
    monkeypatch.setattr("shardline_workers.files.hub_client.importlib.util.find_spec", lambda _: None)

    with pytest.raises(ModelFileError, match=r"`pip install 'shardline\[hub\]'`"):
        host.resolved("hf:org/tiny")

    assert host.resolved("hf:org/tiny", offline=True).path.read_bytes() == LARGE


def test_where_nobody_looks_a_long_download_is_told_in_lines(
    hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardline_workers.files.hub_client._REPORT_EVERY_BYTES", 400_000)

    host.resolved("hf:org/tiny")

    told = [line for line in host.lines if line.startswith("tiny-Q4_0.gguf: ")]
    assert told == ["tiny-Q4_0.gguf: 400.0 kB of 1.0 MB", "tiny-Q4_0.gguf: 800.0 kB of 1.0 MB"]


def test_a_disk_that_fills_meanwhile_is_told(hub: HubServer, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)

    with pytest.raises(ModelFileError, match=r"the disk is full.*XDG_CACHE_HOME"):
        host.resolved("hf:org/tiny")


def test_who_comes_second_waits_for_the_first(hub: HubServer, host: Host) -> None:
    waits = threading.Event()

    class Lines(list[str]):
        def append(self, line: str) -> None:
            if line.startswith("another process fetches it"):
                waits.set()

    host.lines = Lines()
    second = threading.Thread(target=host.resolved, args=("hf:org/tiny",))
    cache = HubCache.of(parse_hub_source("hf:org/tiny"), host.cache)
    with cache.lock(COMMIT, "tiny-Q4_0.gguf", report=lambda _: None):
        second.start()

        assert waits.wait(20)
        assert hub.fetched("tiny-Q4_0.gguf") == []

    second.join()
    assert hub.fetched("tiny-Q4_0.gguf") == [""]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"source": {}, "licence": "", "files": []}', '{"main": 7}'])
def test_notes_that_are_broken_cost_another_download_and_nothing_else(content: str, hub: HubServer, host: Host) -> None:
    host.resolved("hf:org/tiny")
    for note in [*host.cache.rglob(".shardline.json"), *host.cache.rglob("revisions.json")]:
        note.write_text(content)

    assert host.resolved("hf:org/tiny").path.read_bytes() == LARGE

    assert len(hub.fetched("tiny-Q4_0.gguf")) == 2
