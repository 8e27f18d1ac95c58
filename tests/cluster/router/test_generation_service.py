"""Clients over real gRPC, routers on loopback, the queue in memory, a scripted leader."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from shardline_cluster.access.open_gate import OpenGate
from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.queue.answers import Gone, Snapshot
from shardline_cluster.queue.calls import LaneBounds
from shardline_cluster.queue.log_encoding import pack_logprobs
from shardline_cluster.queue.records import RequestState, SequenceFinish
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router import generation
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_server import RouterServer
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationStub
from shardline_protos.status_details_pb2 import Status
from shardline_workers.text.text_model import SamplingDefaults
from tests.cluster.router.router_bench import (
    CONTEXT,
    LANE,
    MODEL,
    RouterBench,
    RunningRouter,
    kinds,
    next_of_kind,
    open_bench,
    read_all,
    request,
    text_of,
)
from tests.cluster.router.scripted_leader import LENGTH, STOP


@pytest.fixture
async def bench() -> AsyncIterator[RouterBench]:
    async with open_bench() as bench:
        yield bench


@pytest.fixture
async def router(bench: RouterBench) -> RunningRouter:
    return await bench.start_router()


async def _begun(bench: RouterBench, router: RunningRouter, ask: pb.GenerateRequest) -> tuple[Any, str]:
    """A stream whose request was accepted and claimed."""
    stream = router.stub.Generate(ask)
    await next_of_kind(stream, "queued")
    request_id = await bench.claim()
    await next_of_kind(stream, "started")
    return stream, request_id


async def _eventually(holds: Callable[[], Awaitable[bool]], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not await holds():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def _state(bench: RouterBench, request_id: str) -> RequestState | None:
    value = (await bench.queue().look(request_id, "default")).value
    return value.state if isinstance(value, Snapshot) else None


async def _error(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (read_all(call) if hasattr(call, "read") else call)
    return raised.value


def _trailing(error: grpc.aio.AioRpcError, key: str) -> str | bytes | None:
    return dict(error.trailing_metadata()).get(key)


def _details(error: grpc.aio.AioRpcError) -> Status:
    packed = _trailing(error, "grpc-status-details-bin")
    assert isinstance(packed, bytes)
    return Status.FromString(packed)


# --- the plain way ---------------------------------------------------------------------------------------------------


async def test_a_request_is_accepted_queued_started_streamed_and_finished(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream = router.stub.Generate(request("hello"))
    accepted = await next_of_kind(stream, "accepted")
    queued = await next_of_kind(stream, "queued")
    request_id = await bench.claim()

    await bench.say(request_id, "Hel")
    await bench.say(request_id, "lo.", finish=LENGTH)
    events = await read_all(stream)

    assert accepted.request_id == request_id
    assert (accepted.accepted.model, accepted.accepted.prompt_tokens) == (MODEL, 5)
    assert not accepted.accepted.duplicate
    assert queued.queued.position == 0
    assert kinds(events)[0] == "started"
    assert kinds(events)[-1] == "finished"
    assert text_of(events) == "Hello."
    last = events[-1].finished
    assert last.state == pb.REQUEST_STATE_DONE
    assert last.sequences[0].finish_reason == pb.FINISH_REASON_LENGTH
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 6)


async def test_an_emoji_split_over_tokens_comes_whole(bench: RouterBench, router: RunningRouter) -> None:
    stream, request_id = await _begun(bench, router, request())
    smile = "😀".encode()

    await bench.say(request_id, b"a" + smile[:2])
    first = await next_of_kind(stream, "tokens")
    await bench.say(request_id, smile[2:], finish=STOP)
    events = await read_all(stream)

    assert first.tokens.text == "a"
    assert len(first.tokens.token_ids) == 3
    assert text_of(events) == "😀"


async def test_sequences_and_log_probabilities_come_as_they_were_committed(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(sampling=pb.SamplingParams(n=2, logprobs=1))
    stream, request_id = await _begun(bench, router, ask)
    record = pack_logprobs(ord("b"), -0.5, [ord("c")], [-0.25], num_logprobs=1)

    await bench.say(request_id, "a", sequence=0, finish=STOP, logprobs=pack_logprobs(97, -1, [], [], num_logprobs=1))
    await bench.say(request_id, "b", sequence=1, finish=LENGTH, logprobs=record)
    events = await read_all(stream)

    assert (text_of(events, 0), text_of(events, 1)) == ("a", "b")
    second = next(e.tokens for e in events if e.HasField("tokens") and e.tokens.sequence == 1)
    assert second.finish_reason == pb.FINISH_REASON_LENGTH
    assert second.logprobs[0].logprob == -0.5
    assert [(top.token_id, top.logprob) for top in second.logprobs[0].top] == [(ord("c"), -0.25)]


async def _prompt_and_output_committed(bench: RouterBench, request_id: str) -> None:
    unknown = pack_logprobs(104, math.nan, [], [], num_logprobs=1)
    scored = unknown + pack_logprobs(105, -0.5, [104], [-0.25], num_logprobs=1)
    await bench.say(request_id, "hi", sequence=1, finish=LENGTH, logprobs=scored)
    await bench.say(request_id, "ab", sequence=0, finish=STOP, logprobs=unknown * 2)


async def test_log_probabilities_of_the_prompt_come_once_and_again_from_the_first_cursor(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(sampling=pb.SamplingParams(prompt_logprobs=1, echo=True))
    stream, request_id = await _begun(bench, router, ask)
    await _prompt_and_output_committed(bench, request_id)

    events = await read_all(stream)
    prompt = next(event for event in events if event.HasField("prompt"))
    again = await read_all(router.stub.Resume(pb.ResumeRequest(request_id=request_id)))
    behind = await read_all(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=prompt.cursor)))

    assert kinds(events).count("prompt") == kinds(again).count("prompt") == 1
    assert "prompt" not in kinds(behind)
    assert text_of(events) == text_of(again) == text_of(behind) == "hiab"
    assert list(prompt.prompt.token_ids) == [104, 105]
    first, second = prompt.prompt.logprobs
    assert (math.isnan(first.logprob), second.logprob) == (True, -0.5)
    assert [(top.token_id, top.logprob) for top in second.top] == [(104, -0.25)]
    assert all(not event.tokens.logprobs for event in events)
    finished = events[-1].finished
    assert (len(finished.sequences), finished.usage.completion_tokens) == (1, 2)


async def test_a_looked_at_request_shows_its_prompt_apart_from_its_outputs(
    bench: RouterBench, router: RunningRouter
) -> None:
    _, request_id = await _begun(bench, router, request(sampling=pb.SamplingParams(prompt_logprobs=1)))
    before = await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id))
    await _prompt_and_output_committed(bench, request_id)

    after = await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id))

    assert (len(before.outputs), list(before.prompt.token_ids)) == (1, [])
    assert [output.text for output in after.outputs] == ["ab"]
    assert list(after.prompt.token_ids) == [104, 105]
    assert [record.logprob for record in after.prompt.logprobs][1] == -0.5
    assert len(after.finished.sequences) == 1


async def test_a_deployment_without_a_running_replica_accepts(bench: RouterBench, router: RunningRouter) -> None:
    events = [await next_of_kind(router.stub.Generate(request(model=MODEL)), "queued")]

    assert events[0].queued.position == 0
    assert (await bench.queue().view()).value.waiting_requests == 1


async def test_a_background_request_ends_its_stream_after_accepted_and_goes_on(
    bench: RouterBench, router: RunningRouter
) -> None:
    events = await read_all(router.stub.Generate(request(background=True), timeout=30))
    request_id = await bench.claim()
    await bench.say(request_id, "done", finish=STOP)

    status = await router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id))

    assert kinds(events) == ["accepted", "queued"]
    assert status.state == pb.REQUEST_STATE_DONE
    assert status.outputs[0].text == "done"
    assert not status.HasField("deadline")  # the call's deadline was for the acceptance


# --- one request, several streams ------------------------------------------------------------------------------------


async def test_a_duplicate_submit_attaches_and_streams_from_token_0(bench: RouterBench, router: RunningRouter) -> None:
    ask = request("once", idempotency_key="k", metadata={"a": "b"})
    first, request_id = await _begun(bench, router, ask)
    await bench.say(request_id, "abc")
    await next_of_kind(first, "tokens")
    other = await bench.start_router()

    second = other.stub.Generate(ask)
    accepted = await next_of_kind(second, "accepted")
    await bench.say(request_id, "def", finish=STOP)

    assert accepted.accepted.duplicate
    assert accepted.request_id == request_id
    assert text_of(await read_all(second)) == "abcdef"
    assert text_of(await read_all(first)) == "def"


async def test_the_same_key_with_another_body_is_refused(bench: RouterBench, router: RunningRouter) -> None:
    await read_all(router.stub.Generate(request("one", idempotency_key="k", background=True)))

    error = await _error(router.stub.Generate(request("two", idempotency_key="k", background=True)))

    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "use a new key" in str(error.details())


async def test_a_held_back_stop_prefix_is_resumed_in_its_middle_by_a_second_router(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(sampling=pb.SamplingParams(stop=["<end>"]))
    stream, request_id = await _begun(bench, router, ask)
    await bench.say(request_id, "ab<e")
    seen = await next_of_kind(stream, "tokens")
    other = await bench.start_router()

    resumed = other.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=seen.cursor))
    await next_of_kind(resumed, "started")
    await bench.say(request_id, "nough<end>", finish=SequenceFinish("stop", "<end>", len("ab<enough")))
    events = await read_all(resumed)

    assert seen.tokens.text == "ab"
    assert text_of(events) == "<enough"
    assert events[-1].finished.sequences[0].stop == "<end>"
    assert text_of(await read_all(stream)) == "<enough"


async def test_text_that_was_held_back_is_told_once_when_a_request_is_cancelled(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(sampling=pb.SamplingParams(stop=["<end>"]))
    stream, request_id = await _begun(bench, router, ask)
    await bench.say(request_id, "ab<e")
    await next_of_kind(stream, "tokens")

    answer = await router.stub.Cancel(pb.CancelRequest(request_id=request_id))
    rest = await next_of_kind(stream, "tokens")
    resumed = await read_all(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=rest.cursor)))

    assert (answer.state, list(answer.end_offsets)) == (pb.REQUEST_STATE_CANCELLED, [4])
    assert rest.tokens.text == "<e"
    assert text_of(resumed) == ""
    assert resumed[-1].finished.sequences[0].finish_reason == pb.FINISH_REASON_CANCELLED


async def test_a_cursor_over_another_text_ends_in_data_loss(bench: RouterBench, router: RunningRouter) -> None:
    stream, request_id = await _begun(bench, router, request())
    await bench.say(request_id, "abc")
    seen = await next_of_kind(stream, "tokens")
    wrong = seen.cursor[:-1] + bytes([seen.cursor[-1] ^ 1])

    error = await _error(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=wrong)))

    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert "token 3" in str(error.details())


@pytest.mark.parametrize("message", [b"\x0a\x02\xff\xfe", b"\x0a\x05hi"], ids=["no UTF-8", "cut off"])
async def test_bytes_that_are_no_request_are_the_clients_fault(router: RunningRouter, message: bytes) -> None:
    for method in ("Generate", "Cancel"):
        call: Any = router.channel.unary_unary(f"/shardline.v1.Generation/{method}")
        error = await _error(call(message))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the request is malformed" in str(error.details())


async def test_bytes_that_are_no_cursor_are_an_invalid_argument(bench: RouterBench, router: RunningRouter) -> None:
    _, request_id = await _begun(bench, router, request())

    error = await _error(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=b"xyz")))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(error, "invalid-field") == "cursor"


# --- clients that go away, or are slow -------------------------------------------------------------------------------


async def test_a_client_that_goes_away_lets_its_request_be_cancelled_where_it_asked_for_that(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(on_disconnect=pb.OnDisconnect(cancel=True))
    stream, request_id = await _begun(bench, router, ask)

    stream.cancel()

    async def is_cancelled() -> bool:
        return await _state(bench, request_id) is RequestState.CANCELLED

    await _eventually(is_cancelled)


async def test_a_slow_reader_holds_up_nobody_and_gets_fewer_and_larger_messages(
    bench: RouterBench, router: RunningRouter
) -> None:
    fast, request_id = await _begun(bench, router, request(sampling=pb.SamplingParams(logprobs=20)))
    record = pack_logprobs(97, -1.0, range(20), [-1.0] * 20, num_logprobs=20)
    steps, size = 60, 100  # more than a megabyte; the slow connection buffers less
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 14)]

    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}", options=options) as channel:
        slow = GenerationStub(channel).Resume(pb.ResumeRequest(request_id=request_id))  # type: ignore[no-untyped-call]
        await next_of_kind(slow, "started")
        for step in range(steps):
            last = step == steps - 1
            await bench.say(request_id, b"a" * size, logprobs=record * size, finish=STOP if last else None)
            assert (await next_of_kind(fast, "tokens")).tokens.offset == step * size
        of_slow = await read_all(slow)

    assert text_of(of_slow) == "a" * steps * size
    assert kinds(of_slow).count("tokens") < steps


async def test_an_unstored_request_is_forgotten_after_its_end_was_read(
    bench: RouterBench, router: RunningRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "FORGET_AFTER_S", 0.0)
    stream, request_id = await _begun(bench, router, request(store=False))
    await bench.say(request_id, "a", finish=STOP)
    await read_all(stream)

    async def is_gone() -> bool:
        return (await bench.queue().look(request_id, "default")).value == Gone()

    await _eventually(is_gone)


# --- time ------------------------------------------------------------------------------------------------------------


async def test_a_timeout_ends_the_request_as_expired(bench: RouterBench, router: RunningRouter) -> None:
    stream, _ = await _begun(bench, router, request(timeout=Duration(seconds=1)))

    bench.skew_ms += 1000
    events = await read_all(stream)

    assert events[-1].finished.state == pb.REQUEST_STATE_EXPIRED
    assert events[-1].finished.error


async def test_the_calls_own_deadline_joins_the_timeout_and_the_shorter_wins(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream = router.stub.Generate(request(timeout=Duration(seconds=1000)), timeout=50)
    accepted = await next_of_kind(stream, "accepted")

    status = await router.stub.GetRequest(pb.GetRequestRequest(request_id=accepted.request_id))

    allowed_ms = status.deadline.ToMilliseconds() - status.submitted.ToMilliseconds()
    assert 1_000 < allowed_ms <= 51_000  # gRPC rounds deadlines up a little


# --- a queue that fails ----------------------------------------------------------------------------------------------


async def test_a_lost_message_is_delivered_within_the_silence(bench: RouterBench, router: RunningRouter) -> None:
    stream, request_id = await _begun(bench, router, request())
    bench.server.lose_messages()
    await bench.say(request_id, "a", finish=STOP)
    begun = time.monotonic()

    events = await read_all(stream)

    assert text_of(events) == "a"
    assert time.monotonic() - begun < 10


async def test_while_the_queue_is_away_new_work_is_refused_and_open_streams_stay(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream, request_id = await _begun(bench, router, request())
    bench.server.go_down()
    bench.store.is_down = True

    async def is_refused() -> bool:
        error = await _error(router.stub.Generate(request(), timeout=10))
        return error.code() is grpc.StatusCode.UNAVAILABLE and _trailing(error, "retry-after-ms") == "1000"

    await _eventually(is_refused)
    assert await _health(router) == health_pb2.HealthCheckResponse.NOT_SERVING
    bench.server.come_up()
    bench.store.is_down = False
    await bench.say(request_id, "back", finish=STOP)

    assert text_of(await read_all(stream)) == "back"


async def test_a_stream_goes_on_over_a_server_that_forgot_its_last_tokens(
    bench: RouterBench, router: RunningRouter
) -> None:
    stream, request_id = await _begun(bench, router, request())
    snapshot = bench.server.snapshot()
    await bench.say(request_id, "abc")
    await next_of_kind(stream, "tokens")
    bench.server.rollback(snapshot)

    async def is_restored() -> bool:
        value = (await bench.queue().look(request_id, "default")).value
        return isinstance(value, Snapshot) and value.logs[0].num_tokens == 3

    await _eventually(is_restored)
    bench.skew_ms += bench.server.terms.hold_ms
    await bench.say(request_id, "def", finish=STOP)

    assert text_of(await read_all(stream)) == "def"


async def test_a_full_lane_names_its_bound_and_when_to_come_again(bench: RouterBench, router: RunningRouter) -> None:
    await bench.queue().configure(LaneBounds(max_waiting_requests=1))
    await read_all(router.stub.Generate(request(background=True)))

    error = await _error(router.stub.Generate(request(background=True)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "max_waiting_requests is 1" in str(error.details())
    assert int(str(_trailing(error, "retry-after-ms"))) > 0
    (detail,) = _details(error).details
    assert detail.type_url == "type.googleapis.com/google.rpc.RetryInfo"


async def test_an_error_about_something_enormous_still_arrives(router: RunningRouter) -> None:
    error = await _error(router.stub.Cancel(pb.CancelRequest(request_id="😀" * 5_000)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _details(error).message == error.details()
    assert "😀😀😀" in str(error.details())


async def test_a_request_that_no_replica_can_hold_is_refused(bench: RouterBench, router: RunningRouter) -> None:
    await bench.queue().configure(LaneBounds(largest_request_tokens=100))

    error = await _error(router.stub.Generate(request("hi", sampling=pb.SamplingParams(max_tokens=99))))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "101 tokens" in str(error.details())


# --- models, single answers ------------------------------------------------------------------------------------------


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(
    bench: RouterBench, router: RunningRouter
) -> None:
    error = await _error(router.stub.Generate(request(model="other")))

    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert f"'other' is not deployed; deployed are: {MODEL}" in str(error.details())


async def test_without_a_name_two_deployed_models_are_one_too_many(bench: RouterBench) -> None:
    await bench.deploy("second", "bytes-2")
    router = await bench.start_router()

    error = await _error(router.stub.Generate(request()))

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

    error = await _error(router.stub.Tokenize(pb.TokenizeRequest(chat=chat, add_special_tokens=False)))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(error, "invalid-field") == "add_special_tokens"


@pytest.mark.parametrize("method", ["Tokenize", "Detokenize"])
async def test_wrong_fields_of_the_tokenizer_calls_are_named(router: RunningRouter, method: str) -> None:
    ask: Any = pb.TokenizeRequest() if method == "Tokenize" else pb.DetokenizeRequest(token_ids=[10**6])

    error = await _error(getattr(router.stub, method)(ask))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _trailing(error, "invalid-field") == ("prompt" if method == "Tokenize" else "token_ids[0]")


async def test_a_request_can_be_looked_at_while_it_runs_and_read_on_from_there(
    bench: RouterBench, router: RunningRouter
) -> None:
    _, request_id = await _begun(bench, router, request("hi", metadata={"who": "me"}))
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
    _, request_id = await _begun(bench, router, request())

    early = await _error(router.stub.Forget(pb.ForgetRequest(request_id=request_id)))
    await router.stub.Cancel(pb.CancelRequest(request_id=request_id))
    await router.stub.Forget(pb.ForgetRequest(request_id=request_id))
    gone = await _error(router.stub.GetRequest(pb.GetRequestRequest(request_id=request_id)))

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

    error = await _error(getattr(router.stub, method)(getattr(pb, name)(request_id=request_id)))

    assert error.code() is code


async def test_an_invalid_field_is_named_in_the_message_and_in_the_metadata(router: RunningRouter) -> None:
    error = await _error(router.stub.Generate(request(sampling=pb.SamplingParams(top_p=1.5))))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "sampling.top_p is 1.5" in str(error.details())
    assert _trailing(error, "invalid-field") == "sampling.top_p"


# --- the server itself -----------------------------------------------------------------------------------------------


async def _health(router: RunningRouter, service: str = "shardline.v1.Generation") -> int:
    stub: Any = HealthStub(router.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_is_told_for_the_server_and_for_each_service(router: RunningRouter) -> None:
    async def serves() -> bool:
        names = ("", "shardline.v1.Generation", "inference.GRPCInferenceService")
        return {await _health(router, name) for name in names} == {health_pb2.HealthCheckResponse.SERVING}

    await _eventually(serves)


async def test_reflection_lists_the_services(router: RunningRouter) -> None:
    channel: Any = router.channel
    stub: Any = ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")

    answers = [answer async for answer in stub.ServerReflectionInfo(iter([ask]))]

    names = {service.name for service in answers[0].list_services_response.service}
    assert {"shardline.v1.Generation", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


async def test_a_router_that_stops_sends_its_clients_elsewhere_and_their_requests_live_on(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(on_disconnect=pb.OnDisconnect(cancel=True))
    stream, request_id = await _begun(bench, router, ask)
    await bench.say(request_id, "abc")
    seen = await next_of_kind(stream, "tokens")
    other = await bench.start_router()

    begun = time.monotonic()
    await router.server.stop()
    error = await _error(stream)
    resumed = other.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=seen.cursor))
    await next_of_kind(resumed, "started")
    await bench.say(request_id, "def", finish=STOP)

    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - begun < 10
    assert text_of(await read_all(resumed)) == "def"


async def test_a_port_that_is_taken_is_a_clear_error(bench: RouterBench, router: RunningRouter) -> None:
    directory = ModelDirectory(KeptRecords(bench.store), open_queue=bench.queue, load=_never, incarnation="router-x")
    config = RouterConfig(port=router.port, redis_url="", terms=QueueTerms.short(), cache_folder="")

    with pytest.raises(ConfigurationError, match="the port is taken"):
        await RouterServer(config, directory, OpenGate()).start()


def _never(_: object) -> Any:
    raise AssertionError("nothing is loaded")
