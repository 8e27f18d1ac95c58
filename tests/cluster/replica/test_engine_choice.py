"""A deployment's options become an engine, or an error that says what to change."""

import os
from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.replica_spec import ReplicaSpec
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_choice import load_model
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.files.model_source import ALIASES, Fetching, resolve_model
from shardline_workers.kernels.native_build import cache_folder
from shardline_workers.kernels.native_library import NativeLibrary
from tests.workers.files.packaged_smollm2 import smollm2_wheel
from tests.workers.text.tiny_vocabulary import byte_level_json, write_json
from tests.workers.tiny_checkpoint import write_tiny_checkpoint


def _spec(model: str = "simulated", *, digest: str = "00", **options: object) -> ReplicaSpec:
    deployment = Deployment(
        name="m",
        model=model,
        lane="m-1",
        weights_digest=digest,
        max_model_len=128,
        options=EngineOptions(**options),  # type: ignore[arg-type]
    )
    return ReplicaSpec(
        deployment=deployment, replica="m-0", incarnation="i", redis_url="", prefix="p", terms=QueueTerms()
    )


def _ignore(_: str) -> None:
    """Nobody reads it."""


def test_a_simulated_engine_takes_its_bounds_from_the_options() -> None:
    spec = _spec(engine="simulated", max_num_seqs=3, kv_cache_tokens=199, simulated_tokens="per-incarnation")

    loaded = load_model(spec, _ignore)

    description = loaded.engine.description
    assert (description.max_num_seqs, description.kv_cache_tokens, description.max_model_len) == (3, 199, 128)
    assert description.details["tokens"] == "per-incarnation"
    assert loaded.text.max_model_len == 128


def test_many_sequences_widen_the_default_token_budget() -> None:
    assert load_model(_spec(engine="simulated", max_num_seqs=4000), _ignore).engine.capacity().free_slots == 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "warp"}, "engine is 'warp', but must be one of shardline, simulated"),
        ({"engine": "simulated", "simulated_tokens": "odd"}, "'odd' is not a valid TokenMode"),
        ({"engine": "simulated", "simulated_tokens": "replay"}, "needs a text"),
        ({"engine": "simulated", "simulated_step_s": -1.0}, "must not be negative"),
        (
            {"engine": "simulated", "kv_cache_tokens": 99},
            "holds 99 tokens .* promises requests of 128: .* --max-model-len 99",
        ),
        ({"engine": "simulated", "max_model_len": 100}, "holds 100 tokens"),
        ({"engine": "simulated", "max_num_seqs": 0}, "max_num_seqs is 0"),
    ],
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_model(_spec(**options), _ignore)  # type: ignore[arg-type]


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    named = default_cache_folder()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")

    assert named == tmp_path / "shardline"
    assert default_cache_folder() == Path("/home/someone/.cache/shardline")


@pytest.mark.model
@pytest.mark.parametrize("kernels", ["native", "reference"])
def test_a_real_model_is_loaded_and_generates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, native_library: NativeLibrary, kernels: str
) -> None:
    _use_cache(monkeypatch, tmp_path)
    files = resolve_model(
        ALIASES["smollm2:135m"],
        cache_folder=default_cache_folder(),
        report=_ignore,
        fetching=Fetching(find_links=smollm2_wheel().parent),
    )
    spec = _spec(str(files.path), digest=files.digest, max_model_len=128, kernels=kernels, max_num_seqs=2)

    loaded = load_model(spec, _ignore)
    prompt = loaded.text.tokenizer.encode("The capital of France is", add_special_tokens=True)
    sampling = Sampling(temperature=0.0, max_tokens=3, stop_token_ids=loaded.text.eos_ids)
    loaded.engine.add(EngineRequest(request_id="a", prompt_ids=tuple(prompt), sampling=sampling))
    ids = [i for _ in range(3) for s in loaded.engine.step().sequences for i in s.token_ids]
    text = b"".join(loaded.text.tokenizer.token_bytes(i, skip_special=True) for i in ids)
    loaded.engine.close()

    assert b"Paris" in text
    assert loaded.engine.description.details["kernels"].startswith(kernels)


def _use_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A cache of the test's own, but for the native kernels, that were built before."""
    built = cache_folder(os.environ) / "native"
    (folder / "shardline").mkdir()
    (folder / "shardline" / "native").symlink_to(built)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


def test_sampling_defaults_that_a_router_would_refuse_do_not_keep_a_replica_from_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write_tiny_checkpoint(tmp_path / "m").path
    write_json(folder / "tokenizer.json", byte_level_json())
    write_json(folder / "generation_config.json", {"temperature": 99.0})
    files = resolve_model(str(folder), cache_folder=default_cache_folder(), report=_ignore)
    spec = _spec(str(folder), digest=files.digest, kernels="reference", generation_config="none")

    loaded = load_model(spec, _ignore)
    loaded.engine.close()

    assert loaded.text.name == "m"


@pytest.mark.model
def test_other_weights_than_the_lanes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = resolve_model(
        ALIASES["smollm2:135m"],
        cache_folder=default_cache_folder(),
        report=_ignore,
        fetching=Fetching(find_links=smollm2_wheel().parent),
    )

    with pytest.raises(ConfigurationError, match=f"has the weights digest {files.digest} on this machine"):
        load_model(_spec(str(files.path), digest="0123456789abcdef"), _ignore)
