"""Calls of the generation service that have one answer: models, tokens, requests that are looked at."""

from typing import Any

import grpc
import grpc.aio
import pytest

from shardline_protos import generation_pb2 as pb
from shardline_workers.text.text_model import SamplingDefaults
from tests.cluster.router.router_bench import (
    CONTEXT,
    LANE,
    MODEL,
    RouterBench,
    RunningRouter,
    next_of_kind,
    read_all,
    request,
    text_of,
)
from tests.cluster.router.scripted_leader import STOP
from tests.cluster.router.service_calls import begun, error_of, trailing


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(
    bench: RouterBench, router: RunningRouter
) -> None:
    error = await error_of(router.stub.Generate(request(model="other")))

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert f"'other' is not deployed; deployed are: {MODEL}" in str(error.details())


async def test_without_a_name_two_deployed_models_are_one_too_many(bench: RouterBench) -> None:
    await bench.deploy("second", "bytes-2")
    router = await bench.start_router()

    error = await error_of(router.stub.Generate(request()))

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert f"{MODEL}, second" in str(error.details())


async def test_models_are_listed_with_their_lanes_counters(bench: RouterBench, router: RunningRouter) -> None:
    await read_all(router.stub.Generate(request(background=True)))

    models = (await router.stub.ListModels(pb.ListModelsRequest())).models

    assert [(m.name, m.max_model_len, m.waiting_requests, m.has_chat_template) for m in models] == [
        (MODEL, CONTEXT, 1, True)
    ]
    assert (models[0].desired_replicas, models[0].ready_replicas) == (1, 0)


async def test_a_models_own_sampling_defaults_are_listed(bench: RouterBench) -> None:
    bench.defaults = SamplingDefaults(temperature=0.0, top_k=40)
    router = await bench.start_router()

    (model,) = (await router.stub.ListModels(pb.ListModelsRequest())).models

    assert model.default_sampling == pb.SamplingParams(temperature=0.0, top_k=40)


async def test_text_is_tokenised_and_back(router: RunningRouter) -> None:
    tokens = await router.stub.Tokenize(pb.TokenizeRequest(text="né"))
    text = await router.stub.Detokenize(pb.DetokenizeRequest(token_ids=tokens.token_ids))

    assert list(tokens.token_ids) == list("né".encode())
    assert tokens.max_model_len == CONTEXT
    assert text.text == "né"


async def test_a_chat_is_tokenised_as_generate_would(bench: RouterBench, router: RunningRouter) -> None:
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="hi")])

    tokens = await router.stub.Tokenize(pb.TokenizeRequest(chat=chat))
    accepted = await next_of_kind(router.stub.Generate(pb.GenerateRequest(chat=chat)), "accepted")

    assert accepted.accepted.prompt_tokens == len(tokens.token_ids)


async def test_a_flag_that_a_chat_would_not_obey_is_refused(router: RunningRouter) -> None:
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content="hi")])

    error = await error_of(router.stub.Tokenize(pb.TokenizeRequest(chat=chat, add_special_tokens=False)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert trailing(error, "invalid-field") == "add_special_tokens"


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize"])
async def test_wrong_fields_of_the_tokenizer_calls_are_named(router: RunningRouter, method: str) -> None:
    ask: Any = pb.TokenizeRequest() if method == "Tokenize" else pb.DetokenizeRequest(token_ids=[10**6])

    error = await error_of(getattr(router.stub, method)(ask))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert trailing(error, "invalid-field") == ("prompt" if method == "Tokenize" else "token_ids[0]")


async def test_a_request_can_be_looked_at_while_it_runs_and_read_on_from_there(
    bench: RouterBench, router: RunningRouter
) -> None:
    _, request_id = await begun(bench, router, request("hi", metadata={"who": "me"}))
    await bench.say(request_id, "abc")

    status = await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id))
    await bench.say(request_id, "def", finish=STOP)
    rest = await read_all(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=status.cursor)))

    assert status.state == pb.REQUEST_STATE_RUNNING
    assert (status.model, status.prompt_tokens, dict(status.metadata)) == (MODEL, 2, {"who": "me"})
    assert status.outputs[0].text == "abc"
    assert not status.HasField("deadline")  # the call had none
    assert text_of(rest) == "def"


async def test_only_ended_requests_can_be_forgotten(bench: RouterBench, router: RunningRouter) -> None:
    _, request_id = await begun(bench, router, request())

    early = await error_of(router.stub.Forget(pb.ForgetRequest(request_id=request_id)))
    await router.stub.Cancel(pb.CancelRequest(request_id=request_id))
    await router.stub.Forget(pb.ForgetRequest(request_id=request_id))
    gone = await error_of(router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id)))

    assert early.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert gone.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Cancel", "GetRequest", "Forget", "Resume"])
@pytest.mark.parametrize(
    ("request_id", "code"),
    [
        ("nonsense", grpc.StatusCode.INVALID_ARGUMENT),
        (f"other-lane-{'0' * 32}", grpc.StatusCode.NOT_FOUND),
        (f"{LANE}-{'0' * 32}", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_ids_that_are_none_and_ids_of_nothing_are_told_apart(
    router: RunningRouter, method: str, request_id: str, code: grpc.StatusCode
) -> None:
    name = f"{method}Request" if method != "GetRequest" else "GetRequestRequest"

    error = await error_of(getattr(router.stub, method)(getattr(pb, name)(request_id=request_id)))

    assert error.code() is code


async def test_an_invalid_field_is_named_in_the_message_and_in_the_metadata(router: RunningRouter) -> None:
    error = await error_of(router.stub.Generate(request(sampling=pb.SamplingParams(top_p=1.5))))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "sampling.top_p is 1.5" in str(error.details())
    assert trailing(error, "invalid-field") == "sampling.top_p"
