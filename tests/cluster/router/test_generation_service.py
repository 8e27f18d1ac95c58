"""Clients over real gRPC, routers on loopback, the queue in memory, a scripted leader: streams, and what clients do
with them."""

import math
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from shardline_cluster.queue.answers import Gone
from shardline_cluster.queue.log_encoding import pack_logprobs
from shardline_cluster.queue.records import RequestState, SequenceFinish
from shardline_cluster.router import generation
from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationStub
from tests.cluster.router.router_bench import (
    MODEL,
    RouterBench,
    RunningRouter,
    kinds,
    next_of_kind,
    read_all,
    request,
    text_of,
)
from tests.cluster.router.scripted_leader import LENGTH, STOP
from tests.cluster.router.service_calls import begun, error_of, eventually, state_of, trailing


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
    stream, request_id = await begun(bench, router, request())
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
    stream, request_id = await begun(bench, router, ask)
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
    stream, request_id = await begun(bench, router, ask)
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
    _, request_id = await begun(bench, router, request(sampling=pb.SamplingParams(prompt_logprobs=1)))
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


async def test_a_duplicate_submit_attaches_and_streams_from_token_0(bench: RouterBench, router: RunningRouter) -> None:
    ask = request("once", idempotency_key="k", metadata={"a": "b"})
    first, request_id = await begun(bench, router, ask)
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

    error = await error_of(router.stub.Generate(request("two", idempotency_key="k", background=True)))

    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "use a new key" in str(error.details())


async def test_a_held_back_stop_prefix_is_resumed_in_its_middle_by_a_second_router(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(sampling=pb.SamplingParams(stop=["<end>"]))
    stream, request_id = await begun(bench, router, ask)
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
    stream, request_id = await begun(bench, router, ask)
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
    stream, request_id = await begun(bench, router, request())
    await bench.say(request_id, "abc")
    seen = await next_of_kind(stream, "tokens")
    wrong = seen.cursor[:-1] + bytes([seen.cursor[-1] ^ 1])

    error = await error_of(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=wrong)))

    assert error.code() is grpc.StatusCode.DATA_LOSS
    assert "token 3" in str(error.details())


@pytest.mark.parametrize("message", [b"\x0a\x02\xff\xfe", b"\x0a\x05hi"], ids=["no UTF-8", "cut off"])
async def test_bytes_that_are_no_request_are_the_clients_fault(router: RunningRouter, message: bytes) -> None:
    for method in ("Generate", "Cancel"):
        call: Any = router.channel.unary_unary(f"/shardline.v1.Generation/{method}")
        error = await error_of(call(message))

        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the request is malformed" in str(error.details())


async def test_bytes_that_are_no_cursor_are_an_invalid_argument(bench: RouterBench, router: RunningRouter) -> None:
    _, request_id = await begun(bench, router, request())

    error = await error_of(router.stub.Resume(pb.ResumeRequest(request_id=request_id, cursor=b"xyz")))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert trailing(error, "invalid-field") == "cursor"


async def test_a_client_that_goes_away_lets_its_request_be_cancelled_where_it_asked_for_that(
    bench: RouterBench, router: RunningRouter
) -> None:
    ask = request(on_disconnect=pb.OnDisconnect(cancel=True))
    stream, request_id = await begun(bench, router, ask)

    stream.cancel()

    async def is_cancelled() -> bool:
        return await state_of(bench, request_id) is RequestState.CANCELLED

    await eventually(is_cancelled)


async def test_a_slow_reader_holds_up_nobody_and_gets_fewer_and_larger_messages(
    bench: RouterBench, router: RunningRouter
) -> None:
    fast, request_id = await begun(bench, router, request(sampling=pb.SamplingParams(logprobs=20)))
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
    stream, request_id = await begun(bench, router, request(store=False))
    await bench.say(request_id, "a", finish=STOP)
    await read_all(stream)

    async def is_gone() -> bool:
        return (await bench.queue().look(request_id, "default")).value == Gone()

    await eventually(is_gone)


async def test_a_timeout_ends_the_request_as_expired(bench: RouterBench, router: RunningRouter) -> None:
    stream, _ = await begun(bench, router, request(timeout=Duration(seconds=1)))

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
