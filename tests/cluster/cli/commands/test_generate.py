"""`shardline generate` against a scripted router."""

import dataclasses
import io
import json
import time

import grpc
import pytest

from shardline import Completion, RequestState, SequenceOutput, TokenLogprobs, TopLogprob, Usage
from shardline_cluster.cli.commands.generate import completion_as_json
from shardline_cluster.cli.main import main
from shardline_cluster.cli.run_file import RunFile, write_run_file
from shardline_cluster.cli.token_meter import TokenMeter
from shardline_protos import generation_pb2 as pb
from tests.cluster.cli.interrupting import interrupt_once_shown
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.scripted_router import Fault, ScriptedCluster

TEXT = "Hello, world!"


def test_the_text_is_streamed_to_standard_output(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router()

    assert main(["generate", "Hi", "--endpoint", router.address]) == 0

    output = capsys.readouterr()
    assert (output.out, output.err) == (f"{TEXT}\n", "")
    assert router.calls[0][1].text == "Hi"


def test_a_chat_is_one_message_of_a_user(start_router: StartRouter) -> None:
    router = start_router()

    assert main(["generate", "--chat", "Hi", "--endpoint", router.address]) == 0

    request = router.calls[0][1]
    assert request.WhichOneof("prompt") == "chat"
    assert [(m.role, m.content) for m in request.chat.messages] == [("user", "Hi")]


def test_flags_become_fields_of_the_request(start_router: StartRouter) -> None:
    router = start_router()
    flags = (
        "--model scripted --max-tokens 5 --temperature 0 --top-p 0.5 --top-k 3 --min-p 0.1 --seed 7 --stop a --stop b"
    )

    main(
        [
            "generate",
            "Hi",
            "--endpoint",
            router.address,
            *flags.split(),
            "--ignore-eos",
            "--timeout",
            "9",
            "--priority",
            "-5",
        ]
    )

    request = router.calls[0][1]
    sampling = request.sampling
    assert (request.model, request.priority, request.timeout.seconds) == ("scripted", -5, 9)
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (5, 0.0, 0.5, 3)
    assert (sampling.min_p, sampling.seed, list(sampling.stop), sampling.ignore_eos) == (0.1, 7, ["a", "b"], True)


def test_log_probabilities_and_echo_are_asked_for(start_router: StartRouter) -> None:
    router = start_router()

    main(
        [
            *("generate", "Hi", "--endpoint", router.address, "--json", "--echo"),
            *("--logprobs", "2", "--prompt-logprobs", "0"),
        ]
    )

    sampling = router.calls[0][1].sampling
    assert (sampling.echo, sampling.logprobs, sampling.prompt_logprobs) == (True, 2, 0)
    assert sampling.HasField("prompt_logprobs")


@pytest.mark.parametrize("flag", ["--logprobs", "--prompt-logprobs"])
def test_log_probabilities_that_nobody_would_see_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Hi", flag, "1"]) != 0

    assert f"{flag} is given, but text alone does not show it: add --json" in capsys.readouterr().err


def test_log_probabilities_stand_in_the_json_where_there_are_any() -> None:
    told = TokenLogprobs(-0.5, (TopLogprob(7, -0.25),))
    output = SequenceOutput(sequence=0, text="x", token_ids=(1,), logprobs=(told,))
    completion = Completion(
        request_id="r",
        model="m",
        state=RequestState.DONE,
        outputs=(output, dataclasses.replace(output, sequence=1, logprobs=())),
        usage=Usage(),
        prompt_token_ids=(4, 5),
        prompt_logprobs=(None, told),
    )

    printed = completion_as_json(completion, TokenMeter())

    as_json = {"logprob": -0.5, "top": [{"token_id": 7, "logprob": -0.25}]}
    assert printed["outputs"][0]["logprobs"] == [as_json]
    assert "logprobs" not in printed["outputs"][1]
    assert printed["prompt_logprobs"] == [None, as_json]


def test_what_is_left_out_is_left_to_the_model(start_router: StartRouter) -> None:
    router = start_router()

    main(["generate", "Hi", "--endpoint", router.address])

    assert not router.calls[0][1].HasField("sampling")


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_the_prompt_can_come_from_standard_input(
    argument: list[str], start_router: StartRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = start_router()
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe\n"))

    assert main(["generate", *argument, "--endpoint", router.address]) == 0

    assert router.calls[0][1].text == "from a pipe\n"


@pytest.mark.parametrize("closed", [False, True])
def test_no_prompt_and_no_pipe_says_what_to_do(
    closed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", None if closed else terminal)

    assert main(["generate"]) == 1

    assert 'shardline generate "Once upon a time"' in capsys.readouterr().err


def test_json_is_one_object(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router(ScriptedCluster(["one", "two!"]))

    assert main(["generate", "Hi", "--endpoint", router.address, "--json", "--n", "2"]) == 0

    answer = json.loads(capsys.readouterr().out)
    assert [output["text"] for output in answer["outputs"]] == ["one", "two!"]
    assert answer["outputs"][0]["finish_reason"] == "stop"
    assert answer["outputs"][1]["token_ids"] == [1100, 1101, 1102, 1103]
    assert (answer["state"], answer["usage"]["completion_tokens"]) == ("DONE", 7)
    assert answer["first_token_s"] > 0


def test_several_outputs_are_printed_apart(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router(ScriptedCluster(["one", "two!"]))

    main(["generate", "Hi", "--endpoint", router.address, "--n", "2"])

    assert capsys.readouterr().out == "[0] one\n[1] two!\n"


def test_stats_go_to_standard_error(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "Hi", "--endpoint", start_router().address, "--stats"])

    output = capsys.readouterr()
    assert output.out == f"{TEXT}\n"
    assert output.err.startswith("3 prompt tokens, 13 tokens, first after ")


def test_the_run_file_names_the_routers_and_the_text_survives_one_of_them(
    start_router: StartRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = ScriptedCluster()
    routers = [start_router(cluster, faults=[Fault(after=6)]) for _ in range(2)]
    write_run_file(
        RunFile(
            name="mine",
            endpoints=tuple(router.address for router in routers),
            redis_url="redis://x",
            redis_prefix="p",
            pid=1,
            started=time.time(),
        )
    )

    assert main(["generate", "Hi", "--name", "mine"]) == 0

    assert capsys.readouterr().out == f"{TEXT}\n"


def test_a_refused_request_is_one_line(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    fault = Fault(code=grpc.StatusCode.INVALID_ARGUMENT, details="sampling.top_p is 2, but must be at most 1")

    assert main(["generate", "Hi", "--endpoint", start_router(faults=[fault]).address]) == 1

    assert capsys.readouterr() == ("", "shardline: --top-p is 2, but must be at most 1\n")


def test_a_failed_request_says_so_after_its_text(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router(ScriptedCluster(["half"], state=pb.REQUEST_STATE_FAILED, error="three crashes"))

    assert main(["generate", "Hi", "--endpoint", router.address]) == 1

    output = capsys.readouterr()
    assert output.out == "half\n"
    assert "failed: three crashes" in output.err


def test_ctrl_c_cancels_the_request(start_router: StartRouter, capsys: pytest.CaptureFixture[str]) -> None:
    router = start_router(pause_after=6)

    with interrupt_once_shown(TEXT[:3]):
        assert main(["generate", "Hi", "--endpoint", router.address]) == 130

    assert router.methods == ["Generate", "Cancel"]
    assert capsys.readouterr().out == f"{TEXT[:3]}\n"


class _LeftReader(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_leaves_cancels_the_request(
    start_router: StartRouter, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    router = start_router(pause_after=6)
    monkeypatch.setattr("sys.stdout", _LeftReader())

    assert main(["generate", "Hi", "--endpoint", router.address]) == 1

    assert router.methods == ["Generate", "Cancel"]
    assert capfd.readouterr().err == ""
