"""`shardline generate`: continues a text and streams it to standard output."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from shardline import Client, Completion, CompletionStream, TokenLogprobs
from shardline_cluster.cli import standard_input
from shardline_cluster.cli.conversations.answer_printing import print_answer, read_answer
from shardline_cluster.cli.flags.config_file import add_config_flag
from shardline_cluster.cli.flags.number_flags import number_from, number_within
from shardline_cluster.cli.flags.sampling_flags import add_sampling_flags, sampling_options
from shardline_cluster.cli.router_address import add_router_flags, connect
from shardline_cluster.cli.token_meter import TokenMeter
from shardline_cluster.errors import InvalidRequestError
from shardline_workers.sampling_bounds import LOGPROBS

_DESCRIPTION = """\
Continues a text and streams the output as it comes. The prompt is taken as it is, unless --chat asks it as a user's
message; for a conversation, use `shardline chat`.
"""
_EPILOG = """\
examples:
  shardline generate "Once upon a time" --max-tokens 64
  shardline generate --chat "Why is the sky blue?"
  cat prompt.txt | shardline generate - --stats
  shardline generate "2 + 2 =" --temperature 0 --json
"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds the command and its flags."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "generate",
        help="continue a text",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument(
        "prompt", nargs="?", default="-", metavar="PROMPT", help="the text; - or nothing reads it from standard input"
    )
    add_sampling_flags(parser)
    parser.add_argument("--n", type=number_from(1, whole=True), help="number of outputs (default: 1)")
    parser.add_argument("--echo", action="store_true", default=None, help="print the prompt before the output")
    likeliest = number_within(LOGPROBS, whole=True)
    parser.add_argument(
        "--logprobs",
        type=likeliest,
        metavar="K",
        help="tell how likely each token was, and the K likeliest; wants --json",
    )
    parser.add_argument(
        "--prompt-logprobs", type=likeliest, metavar="K", help="the same of the prompt's own tokens; wants --json"
    )
    parser.add_argument(
        "--chat", action="store_true", help="ask PROMPT as a user's message in the model's chat template"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of the text")
    parser.add_argument("--stats", action="store_true", help="print how fast it went to standard error")
    add_router_flags(parser)
    add_config_flag(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Generates; Ctrl-C cancels the request.

    Raises:
        ShardlineError: of the client, in words for people.
    """
    _refuse_unseen(arguments)
    prompt = _prompt(arguments.prompt)
    with connect(arguments) as client:
        meter = TokenMeter()
        with _open(client, prompt, arguments) as stream:
            completion = (print_answer if _streams_text(arguments) else read_answer)(stream, meter)
    if arguments.json:
        print(json.dumps(completion_as_json(completion, meter)))
    elif not _streams_text(arguments):
        _print_outputs(completion)
    if arguments.stats:
        print(meter.summary(), file=sys.stderr)
    return 0


def completion_as_json(completion: Completion, meter: TokenMeter) -> dict[str, Any]:
    """A completion for programs. Times are seconds, as this command saw them."""
    return {
        "request_id": completion.request_id,
        "model": completion.model,
        "state": completion.state.value,
        "outputs": [
            {
                "sequence": output.sequence,
                "text": output.text,
                "token_ids": list(output.token_ids),
                "finish_reason": output.finish_reason.value if output.finish_reason else None,
                "stop": output.stop,
                **_told("logprobs", output.logprobs),
            }
            for output in completion.outputs
        ],
        "usage": {
            "prompt_tokens": completion.usage.prompt_tokens,
            "completion_tokens": completion.usage.completion_tokens,
        },
        **_told("prompt_logprobs", completion.prompt_logprobs),
        "first_token_s": meter.first_token_s,
        "tokens_per_s": meter.tokens_per_s,
    }


def _told(name: str, records: Sequence[TokenLogprobs | None]) -> dict[str, Any]:
    """Log-probabilities under a name, where there are any; null is that of the prompt's first token."""
    told = [None if record is None else _logprobs_as_json(record) for record in records]
    return {name: told} if told else {}


def _logprobs_as_json(record: TokenLogprobs) -> dict[str, Any]:
    top = [{"token_id": token.token_id, "logprob": token.logprob} for token in record.top]
    return {"logprob": record.logprob, "top": top}


def _refuse_unseen(arguments: argparse.Namespace) -> None:
    for name in ("logprobs", "prompt_logprobs"):
        if getattr(arguments, name) is not None and not arguments.json:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidRequestError(
                f"{flag} is given, but text alone does not show it: add --json, or leave {flag} out", field=name
            )


def _prompt(given: str) -> str:
    if given != "-":
        return given
    if not standard_input.is_piped():
        raise InvalidRequestError(
            'no prompt is given: write it after the command, as in `shardline generate "Once upon a time"`, '
            "or pipe it into standard input",
            field="prompt",
        )
    return standard_input.read_all()


def _open(client: Client, prompt: str, arguments: argparse.Namespace) -> CompletionStream:
    options = sampling_options(arguments)
    options["n"], options["echo"] = arguments.n, arguments.echo
    options["logprobs"], options["prompt_logprobs"] = arguments.logprobs, arguments.prompt_logprobs
    if arguments.chat:
        return client.stream_chat([{"role": "user", "content": prompt}], model=arguments.model, **options)
    return client.stream(prompt, model=arguments.model, **options)


def _streams_text(arguments: argparse.Namespace) -> bool:
    """Several outputs at once would mix on a terminal."""
    return not arguments.json and arguments.n in (None, 1)


def _print_outputs(completion: Completion) -> None:
    for output in completion.outputs:
        print(f"[{output.sequence}] {output.text}")
