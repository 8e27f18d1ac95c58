"""The flags that say how tokens are chosen and when a request ends; `generate` and `chat` share them."""

import argparse

from shardline.requests import RequestOptions
from shardline_cluster.cli.flags.number_flags import number_from, number_within
from shardline_workers import sampling_bounds


def add_sampling_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags; those that are left out take the model's own defaults."""
    group = parser.add_argument_group("how to generate (left out: the model's own defaults)")
    group.add_argument("--model", default="", help="name of the model; may be left out where only one is served")
    whole, tokens = number_from(0, 2**31, whole=True), number_from(1, 2**31, whole=True)
    group.add_argument(
        "--max-tokens", type=tokens, metavar="N", help="longest output, in tokens; else up to the end of its context"
    )
    _add_choice(group)
    _add_penalties(group)
    group.add_argument(
        "--logit-bias",
        type=_bias,
        action="append",
        metavar="ID=VALUE",
        help="add VALUE, -100 to 100, to the logit of token ID; may be repeated",
    )
    group.add_argument(
        "--bad-word",
        action="append",
        metavar="TEXT",
        help="never write this, with a space before or without; may be repeated",
    )
    group.add_argument(
        "--seed", type=number_from(0, 2**64 - 1, whole=True), metavar="N", help="the same seed, the same output"
    )
    group.add_argument("--stop", action="append", metavar="TEXT", help="end before this text; may be repeated")
    group.add_argument(
        "--stop-token-id", type=whole, action="append", metavar="ID", help="end with this token; may be repeated"
    )
    group.add_argument("--min-tokens", type=whole, metavar="N", help="do not end before so many tokens")
    group.add_argument("--ignore-eos", action="store_true", default=None, help="go on after the model's end of text")
    group.add_argument("--timeout", type=number_from(0.001), metavar="SECONDS", help="give up after so long")
    group.add_argument(
        "--priority",
        type=number_from(-100, 100, whole=True),
        metavar="N",
        help="-100 to 100; lower goes first (default: 0)",
    )


def _add_choice(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--temperature",
        type=number_within(sampling_bounds.TEMPERATURE),
        metavar="T",
        help="0 always takes the likeliest token; 1 is usual",
    )
    group.add_argument(
        "--top-p",
        type=number_within(sampling_bounds.TOP_P),
        metavar="P",
        help="choose among the likeliest tokens that make up P",
    )
    group.add_argument(
        "--top-k",
        type=number_within(sampling_bounds.TOP_K, whole=True),
        metavar="K",
        help="choose among the K likeliest tokens; 0: among all",
    )
    group.add_argument(
        "--min-p",
        type=number_within(sampling_bounds.MIN_P),
        metavar="P",
        help="leave out tokens less likely than P times the likeliest",
    )


def _add_penalties(group: argparse._ArgumentGroup) -> None:
    within = number_within(sampling_bounds.OUTPUT_PENALTY)
    group.add_argument(
        "--repetition-penalty",
        type=number_within(sampling_bounds.REPETITION_PENALTY),
        metavar="R",
        help="divide positive logits of tokens in prompt or output by R, multiply others; 1 is off, 1.1 usual",
    )
    group.add_argument(
        "--frequency-penalty",
        type=within,
        metavar="F",
        help="take F off a token's logit each time it comes",
    )
    group.add_argument(
        "--presence-penalty", type=within, metavar="P", help="take P off a token's logit once it has come"
    )


def _bias(text: str) -> tuple[int, float]:
    token_id, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no bias: write a token id, = and a number, as in 42=-100")
    return int(number_from(0, 2**32 - 1, whole=True)(token_id)), number_within(sampling_bounds.LOGIT_BIAS)(value)


def sampling_options(arguments: argparse.Namespace) -> RequestOptions:
    """What the flags say, in the client's words."""
    return {
        "max_tokens": arguments.max_tokens,
        "temperature": arguments.temperature,
        "top_p": arguments.top_p,
        "top_k": arguments.top_k,
        "min_p": arguments.min_p,
        "repetition_penalty": arguments.repetition_penalty,
        "frequency_penalty": arguments.frequency_penalty,
        "presence_penalty": arguments.presence_penalty,
        "logit_bias": None if arguments.logit_bias is None else dict(arguments.logit_bias),
        "bad_words": arguments.bad_word,
        "seed": arguments.seed,
        "min_tokens": arguments.min_tokens,
        "stop": arguments.stop,
        "stop_token_ids": arguments.stop_token_id,
        "ignore_eos": arguments.ignore_eos,
        "timeout_s": arguments.timeout,
        "priority": arguments.priority,
    }
