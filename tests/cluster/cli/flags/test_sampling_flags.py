"""The flags that say how to generate."""

import argparse

import pytest

from shardline_cluster.cli.flags.sampling_flags import add_sampling_flags, sampling_options


def test_what_is_left_out_is_none() -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    assert set(sampling_options(parser.parse_args([])).values()) == {None}


def test_a_switch_that_is_given_is_true() -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    assert sampling_options(parser.parse_args(["--ignore-eos"]))["ignore_eos"] is True


def test_every_flag_arrives_in_the_clients_words() -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    flags = (
        "--repetition-penalty 1.1 --frequency-penalty -0.5 --presence-penalty 2 --logit-bias 4=-100 --logit-bias 5=2"
    )
    rest = "--bad-word no --bad-word never --min-tokens 3 --stop-token-id 7 --stop-token-id 8"
    options = sampling_options(parser.parse_args([*flags.split(), *rest.split()]))

    assert {name: value for name, value in options.items() if value is not None} == {
        "repetition_penalty": 1.1,
        "frequency_penalty": -0.5,
        "presence_penalty": 2.0,
        "logit_bias": {4: -100.0, 5: 2.0},
        "bad_words": ["no", "never"],
        "min_tokens": 3,
        "stop_token_ids": [7, 8],
    }


@pytest.mark.parametrize("bias", ["4", "4=", "=1", "x=1", "4=101", "-1=1", "4=nan"])
def test_what_is_no_bias_is_refused(bias: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    with pytest.raises(SystemExit):
        parser.parse_args(["--logit-bias", bias])

    assert "--logit-bias" in capsys.readouterr().err
