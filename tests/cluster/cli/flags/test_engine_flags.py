"""The flags of an engine become its options; a template travels as text; bounds are those of every other way in."""

import argparse
from pathlib import Path

import pytest

from shardline_cluster.cli.flags.engine_flags import add_engine_flags, engine_options
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions


def _options(*flags: str) -> EngineOptions:
    parser = argparse.ArgumentParser()
    add_engine_flags(parser)
    return engine_options(parser.parse_args(flags))


def test_without_flags_the_options_are_the_defaults() -> None:
    assert _options() == EngineOptions()


def test_each_flag_becomes_its_option() -> None:
    flags = ("--engine", "simulated", "--max-num-seqs", "7", "--no-enable-prefix-caching", "--simulated-step-s", "0.5")

    assert _options(*flags) == EngineOptions(
        engine="simulated", max_num_seqs=7, enable_prefix_caching=False, simulated_step_s=0.5
    )


def test_a_chat_template_travels_as_text_and_not_as_a_path(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages }}")

    assert _options("--chat-template", str(file)).chat_template == "{{ messages }}"
    assert _options("--chat-template", "{% if x %}").chat_template == "{% if x %}"


def test_a_chat_template_that_is_not_there_is_refused_with_the_flag(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--chat-template"):
        _options("--chat-template", str(tmp_path / "absent"))


def test_a_device_that_there_is_not_is_refused_with_the_flag() -> None:
    with pytest.raises(ConfigurationError, match="--device is 'tpu', but must be cpu, cuda, or cuda:N"):
        _options("--device", "tpu")


def test_a_number_out_of_bounds_is_refused_with_its_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _options("--max-num-seqs", "0")

    assert "must be from 1 to 2147483648" in capsys.readouterr().err


def test_sizes_are_numbers_or_auto() -> None:
    flags = ("--tensor-parallel-size", "4", "--pipeline-parallel-size", "auto", "--rank-resource", "", "--no-replan")

    assert _options(*flags) == EngineOptions(
        tensor_parallel_size=4, pipeline_parallel_size=None, rank_resource="", replan=False
    )


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--tensor-parallel-size", "4", "--expert-parallel-size", "3"),
            "--expert-parallel-size is 3, but with --tensor-parallel-size 4 and --data-parallel-size 1 it must be one "
            "of 1, 2, 4",
        ),
        (
            ("--tensor-parallel-size", "4", "--expert-parallel-size", "2", "--enable-expert-parallel"),
            "--enable-expert-parallel is true, but --expert-parallel-size is 2",
        ),
        (
            ("--device", "cuda:1", "--tensor-parallel-size", "2"),
            "--device is cuda:1, but the replica has several ranks",
        ),
        (("--rank-resource", "a b"), "--rank-resource is 'a b', but must have"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused_with_their_flags(flags: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        _options(*flags)

    assert told in str(refusal.value)
