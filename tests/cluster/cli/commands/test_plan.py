"""`shardline plan`: published shapes, files, hardware that does and hardware that does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from shardline_cluster.cli.main import main
from tests.workers.tiny_checkpoint import NUM_LAYERS, write_tiny_checkpoint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path).path


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["plan", *words, "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def test_a_plan_tells_sizes_shape_places_and_speed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "llama-3.3-70b", "--gpus", "8xH100-80GB", "--concurrency", "4"]) == 0

    text = capsys.readouterr().out
    assert "weights      141.1 GB as bf16 (embedding 2.1 GB, head 2.1 GB" in text
    assert "KV cache     10.7 GB as bfloat16 for 4 requests of 8,192 tokens, 327.7 kB a token" in text
    assert "plan         tp=2: 2 x H100-80GB" in text
    assert "0      0-79    70.6 GB  5.4 GB" in text
    assert "node-0 GPU 0,1" in text
    assert "roofline     one request 47." in text
    assert text.endswith("serve it so  --device cuda --tensor-parallel-size 2\n")


def test_several_cards_come_with_the_flags_that_serve_takes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "llama-3.3-70b", "--gpus", "2xH100-80GB", "--pipeline-parallel-size", "2"])

    assert "serve it so  --device cuda --pipeline-parallel-size 2\n" in capsys.readouterr().out


def test_on_one_card_nothing_is_said_of_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "llama-3.1-8b", "--gpus", "RTX-4090"])

    text = capsys.readouterr().out
    assert "plan         tp=1: 1 x RTX-4090" in text
    assert "serve it so" not in text


def test_a_plan_for_programs_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    facts = planned(capsys, "deepseek-v3", "--nodes", "2x8xH100-80GB", "--quantization", "fp8")

    plan = facts["plan"]
    assert (facts["num_parameters"], facts["kv_bytes_per_token"]) == (671_026_419_200, 70_272)
    assert plan["tensor_parallel_size"] * plan["pipeline_parallel_size"] == plan["num_ranks"] == 10
    assert sum(stage["num_layers"] for stage in plan["stages"]) == 61
    for bundle in plan["replicas"][0]:
        assert bundle["bytes_per_gpu"] <= bundle["usable_bytes_per_gpu"]
    assert set(plan["roofline_tokens_per_s"]) == {"decode_alone", "decode_together", "prefill"}


def test_without_hardware_all_cards_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "mixtral-8x7b"]) == 0

    lines = capsys.readouterr().out.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("H100-80GB")]
    assert row[:3] == ["H100-80GB", "2", "tp=2"]


def test_without_hardware_programs_get_all_cards_too(capsys: pytest.CaptureFixture[str]) -> None:
    gpus = planned(capsys, "mixtral-8x7b")["gpus"]

    assert (gpus["MI300X"]["num_ranks"], gpus["H100-80GB"]["num_ranks"]) == (1, 2)


def test_windows_are_told_where_they_save_something(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "gemma-3-4b", "--context", "131072", "--gpus", "H100"])

    assert "layers with a window keep all of it; what they see would be 2.8 GB in all" in capsys.readouterr().out


def test_a_folder_is_planned_by_the_bytes_of_its_header(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = planned(capsys, str(tiny), "--gpus", "L4")

    (weights,) = tiny.glob("*.safetensors")
    assert facts["format"] == "its own F64"
    assert weights.stat().st_size * 0.8 < facts["weights_bytes"] < weights.stat().st_size
    assert facts["plan"]["stages"][0]["num_layers"] == NUM_LAYERS


def test_a_folder_can_be_planned_in_another_format(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, half = (planned(capsys, str(tiny), *words)["weights_bytes"] for words in ([], ["--quantization", "bf16"]))

    assert half == own / 4  # from float64


def test_replicas_go_to_different_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    replicas = planned(capsys, "qwen3-8b", "--nodes", "2x2xL40S", "--replicas", "2")["plan"]["replicas"]

    assert [bundles[0]["node"] for bundles in replicas] == ["node-0", "node-1"]


def test_sizes_that_are_asked_for_stand(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--tensor-parallel-size", "2", "--pipeline-parallel-size", "auto", "--enable-expert-parallel")

    plan = planned(capsys, "qwen3-30b-a3b", "--gpus", "8xL40S", *words)["plan"]

    assert (plan["tensor_parallel_size"], plan["expert_parallel_size"]) == (2, 2)


def test_what_does_not_fit_is_told_with_what_may_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "deepseek-v3", "--gpus", "8xH100-80GB", "--quantization", "fp8"]) == 1

    output = capsys.readouterr()
    assert output.out.startswith("deepseek-v3: 671.03 billion parameters")
    assert output.err.startswith("shardline: weights, keys and values need 9 such GPUs at least")
    assert "2 nodes of 8 x H100-80GB (tp=5 pp=2), or --quantization q6_k, or a shorter --context" in output.err


def test_a_shape_that_cannot_work_is_told_with_the_nearest_that_can(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "plan",
        "llama-3.3-70b",
        "--gpus",
        "8xH100",
        "--tensor-parallel-size",
        "1",
        "--pipeline-parallel-size",
        "1",
    ]

    assert main(words) == 1
    assert "tp=1 takes 145.8 GB of a GPU" in capsys.readouterr().err
    assert main([*words, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["plan"], facts["remedy"]) == (None, "The nearest plan that fits is tp=1 pp=2")
    assert facts["nearest"]["num_ranks"] == 2


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["gpt-7"], 1, "Published shapes: deepseek-r1, deepseek-v3, gemma-3-12b"),
        (["hf:org/none"], 1, "`shardline pull hf:org/none` fetches it"),
        (["qwen3-8b", "--context", "100000"], 1, "--context is 100000; qwen3-8b was made for 1 to 40960 tokens"),
        (["qwen3-8b", "--gpus", "8xTPU"], 2, "'TPU' is no GPU that is known here"),
        (["qwen3-8b", "--gpus", "8xA100"], 2, "may mean A100-40GB or A100-80GB"),
        (["qwen3-8b", "--gpus", "L4", "--nodes", "L4"], 2, "not allowed with argument"),
        (["qwen3-8b", "--quantization", "q3"], 2, "'q3' is no format: it must be one of bf16, fp16"),
        (["qwen3-8b", "--tensor-parallel-size", "0"], 2, "it must be from 1 to 4096"),
        (["qwen3-8b", "--tensor-parallel-size", "many"], 2, "'many' is neither a whole number nor auto"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_clear_error(
    words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *words]) == code

    assert told in capsys.readouterr().err
