"""The flags that say how tokens are chosen and when a request ends; `generate` and `chat` share them."""

import argparse

from shardline.requests import RequestOptions
from shardline_cluster.cli.number_flags import number_from


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; those that are left out take the model's own defaults."""
    group = parser.add_argument_group("how to generate (left out: the model's own defaults)")
    group.add_argument("--model", default="", help="name of the model; may be left out where only one is served")
    whole, tokens = number_from(0, 2**31, whole=True), number_from(1, 2**31, whole=True)
    group.add_argument(
        "--max-tokens", type=tokens, metavar="N", help="longest output, in tokens; else up to the end of its context"
    )
    group.add_argument(
        "--temperature", type=number_from(0, 10), metavar="T", help="0 always takes the likeliest token; 1 is usual"
    )
    group.add_argument(
        "--top-p", type=number_from(0, 1), metavar="P", help="choose among the likeliest tokens that make up P"
    )
    group.add_argument("--top-k", type=whole, metavar="K", help="choose among the K likeliest tokens; 0: among all")
    group.add_argument(
        "--min-p", type=number_from(0, 1), metavar="P", help="leave out tokens less likely than P times the likeliest"
    )
    group.add_argument(
        "--seed", type=number_from(0, 2**64 - 1, whole=True), metavar="N", help="the same seed, the same output"
    )
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    group.add_argument("--ignore-eos", action="store_true", default=None, help="go on after the model's end of text")
    group.add_argument("--timeout", type=number_from(0.001), metavar="SECONDS", help="give up after so long")
    group.add_argument(
        "--priority",
        type=number_from(-100, 100, whole=True),
        metavar="N",
        help="-100 to 100; lower goes first (default: 0)",
    )


def sampling_options(arguments: argparse.Namespace) -> RequestOptions:
    """What the flags say, in the client's words."""
    return {
        "max_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "min_p": arguments.min_p,
        "seed": arguments.seed,
        "stop": arguments.stop,
        "ignore_eos": arguments.ignore_eos,
        "timeout_s": arguments.timeout,
        "priority": arguments.priority,
    }
