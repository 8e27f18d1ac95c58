"""The flags that say how to generate."""

import argparse

from shardline_cluster.cli.sampling_flags import add_sampling_flags, sampling_options


def test_what_is_left_out_is_none() -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    assert set(sampling_options(parser.parse_args([])).values()) == {None}


def test_a_switch_that_is_given_is_true() -> None:
    parser = argparse.ArgumentParser()
    add_sampling_flags(parser)

    assert sampling_options(parser.parse_args(["--ignore-eos"]))["ignore_eos"] is True
