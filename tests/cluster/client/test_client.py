"""The plain client against routers on loopback that fail in every way a router can."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from shardline import Accepted, Client, Finished, FinishReason, RequestState, Retry, Tokens
from shardline.errors import (
    QueueFullError,
    RequestCancelledError,
    RequestFailedError,
    StreamClosedError,
    StreamMismatchError,
    UnavailableError,
    UnknownModelError,
    UnknownRequestError,
)
from shardline_protos import generation_pb2 as pb
from tests.cluster.client.conftest import StartRouter
from tests.cluster.client.dead_sockets import RudeListener, unused_address
from tests.cluster.client.scripted_router import Fault, Lie, ScriptedCluster

TEXT = "Hello, world!"


def test_a_completion_comes_whole(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address) as client:
        completion = client.generate("Hi", model="scripted", max_tokens=20, temperature=0.0)

    assert completion.text == TEXT
    assert completion.model == "scripted"
    assert completion.state is RequestState.DONE
    assert completion.finish_reason is FinishReason.STOP
    assert len(completion.token_ids) == len(TEXT)
    assert completion.usage.completion_tokens == len(TEXT)
    assert router.calls[0][1].sampling.max_tokens == 20


def test_several_sequences_are_kept_apart(start_router: StartRouter) -> None:
    router = start_router(ScriptedCluster(["one", "second"]))

    with Client(router.address) as client:
        completion = client.generate("Hi", n=2)

    assert [output.text for output in completion.outputs] == ["one", "second"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=6),
        Fault(after=6, code=None),
        Fault(after=6, code=grpc.StatusCode.CANCELLED),
        Fault(after=6, code=grpc.StatusCode.UNKNOWN, details="Stream removed"),
        Fault(after=6, code=grpc.StatusCode.INTERNAL, details="Received RST_STREAM with error code 2"),
        Fault(after=0),
        Fault(after=1),
    ],
)
def test_a_broken_stream_goes_on_where_it_was(start_router: StartRouter, fault: Fault) -> None:
    router = start_router(faults=[fault])

    with Client(router.address) as client, client.stream("Hi") as stream:
        tokens = [event for event in stream if isinstance(event, Tokens)]

    assert "".join(event.text for event in tokens) == TEXT
    assert [event.offset for event in tokens if event.token_ids] == list(range(len(TEXT)))
    assert router.methods == ["Generate", "Resume" if fault.after else "Generate"]
    assert len(router.cluster.requests) == 1


def test_a_stream_survives_one_break_after_the_other(start_router: StartRouter) -> None:
    router = start_router(faults=[Fault(after=count) for count in (0, 0, 4, 2, 1, 3)])

    with Client(router.address) as client:
        assert client.generate("Hi").text == TEXT

    assert router.methods == ["Generate"] * 3 + ["Resume"] * 4


def test_another_router_takes_over_when_one_dies_in_the_middle(start_router: StartRouter) -> None:
    cluster = ScriptedCluster()
    routers = [start_router(cluster, pause_after=6), start_router(cluster, pause_after=6)]

    with Client([router.address for router in routers]) as client, client.stream("Hi") as stream:
        assert isinstance(next(stream), Accepted)
        dying, other = routers if routers[0].calls else routers[::-1]
        assert dying.paused.wait(30)
        other.go_on.set()
        dying.stop()
        completion = stream.result()

    assert completion.text == TEXT
    assert (dying.methods, other.methods) == (["Generate"], ["Resume"])


def test_a_router_that_comes_back_on_its_address_is_found_again(start_router: StartRouter) -> None:
    cluster = ScriptedCluster()
    first = start_router(cluster, pause_after=6)
    port = int(first.address.rpartition(":")[2])

    with Client(first.address) as client, client.stream("Hi") as stream:
        assert isinstance(next(stream), Accepted)
        assert first.paused.wait(30)
        first.stop()
        second = start_router(cluster, port=port)
        completion = stream.result()

    assert completion.text == TEXT
    assert second.methods == ["Resume"]


def test_a_peer_that_resets_connections_is_passed_over(start_router: StartRouter) -> None:
    router = start_router()

    with RudeListener() as rude, Client([rude.address, router.address]) as client:
        assert [client.generate("Hi").text for _ in range(3)] == [TEXT] * 3


def test_a_gap_is_an_error_and_never_joined(start_router: StartRouter) -> None:
    router = start_router(faults=[Lie(lambda events: events[:6] + events[7:])])
    texts: list[str] = []

    with Client(router.address) as client, pytest.raises(StreamMismatchError, match="offset 4, but 3 were received"):
        texts.extend(client.stream("Hi").text())

    assert "".join(texts) == TEXT[:3]


def test_a_refusal_is_waited_out(start_router: StartRouter) -> None:
    refusal = Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="the lane is full", retry_after_ms=20)
    router = start_router(faults=[refusal, refusal])

    with Client(router.address) as client:
        assert client.generate("Hi").text == TEXT

    keys = {request.idempotency_key for _, request in router.calls}
    assert (len(router.calls), len(keys)) == (3, 1)


def test_refusals_without_end_are_told(start_router: StartRouter) -> None:
    refusal = Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="the lane is full", retry_after_ms=20)
    router = start_router(faults=[refusal] * 9)

    with Client(router.address, max_refusals=2) as client, pytest.raises(QueueFullError, match="the lane is full") as e:
        client.generate("Hi")

    assert len(router.calls) == 3
    assert e.value.retry_after_s == pytest.approx(0.02)


def test_an_unknown_model_is_told_at_once(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address) as client, pytest.raises(UnknownModelError, match="there is: scripted"):
        client.generate("Hi", model="other")

    assert len(router.calls) == 1


def test_no_router_at_all_is_told_when_patience_is_over() -> None:
    with Client(unused_address(), patience_s=0.5) as client:
        with pytest.raises(UnavailableError, match=r"patience is 0\.5 s"):
            client.generate("Hi")
        with pytest.raises(UnavailableError, match=r"patience is 0\.5 s"):
            client.models()


def test_a_failed_request_raises_with_what_there_is_of_it(start_router: StartRouter) -> None:
    router = start_router(ScriptedCluster(["half"], state=pb.REQUEST_STATE_FAILED, error="three crashes"))

    with Client(router.address) as client, pytest.raises(RequestFailedError, match="failed: three crashes") as raised:
        client.generate("Hi")

    assert raised.value.completion.text == "half"
    assert raised.value.request_id == next(iter(router.cluster.requests))


def test_events_tell_a_failed_end_without_raising(start_router: StartRouter) -> None:
    router = start_router(ScriptedCluster(["half"], state=pb.REQUEST_STATE_FAILED, error="three crashes"))

    with Client(router.address) as client:
        *_, last = client.stream("Hi")

    assert isinstance(last, Finished)
    assert (last.state, last.error) == (RequestState.FAILED, "three crashes")


def test_leaving_a_stream_cancels_nothing_and_it_can_be_resumed(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address) as client:
        with client.stream("Hi") as stream:
            begun = [next(stream) for _ in range(6)]
            assert stream.request_id is not None
        rest = client.resume(stream.request_id, stream.cursor).result()

    assert "".join(event.text for event in begun if isinstance(event, Tokens)) + rest.text == TEXT
    assert "Cancel" not in router.methods


def test_cancelling_a_stream_ends_its_request(start_router: StartRouter) -> None:
    router = start_router(pause_after=6)

    with Client(router.address) as client, client.stream("Hi") as stream:
        next(stream)
        assert router.paused.wait(30)
        stream.cancel()
        with pytest.raises(RequestCancelledError) as raised:
            stream.result()

    assert raised.value.completion.text == TEXT[:3]


def test_a_cancel_before_acceptance_comes_right_after_it(start_router: StartRouter) -> None:
    router = start_router(pause_after=1)

    with Client(router.address) as client, client.stream("Hi") as stream:
        stream.cancel()
        with pytest.raises(RequestCancelledError):
            stream.result()

    assert router.methods == ["Generate", "Cancel"]


def test_closing_wakes_a_reader_in_another_thread(start_router: StartRouter) -> None:
    router = start_router(pause_after=2)
    client = Client(router.address)
    stream = client.stream("Hi")
    raised: list[BaseException] = []

    def read() -> None:
        try:
            stream.result()
        except StreamClosedError as error:
            raised.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert router.paused.wait(30)
    stream.close()
    reader.join(10)
    client.close()

    assert len(raised) == 1


def test_a_closed_client_says_so(start_router: StartRouter) -> None:
    client = Client(start_router().address)
    client.close()

    with pytest.raises(StreamClosedError, match="client is closed"):
        client.generate("Hi")


def test_the_timeout_is_the_requests_and_calls_may_take_a_little_longer(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address) as client:
        client.generate("Hi", timeout_s=30)

    limit_s = router.time_limits[0]
    assert limit_s is not None
    assert 30 < limit_s < 37
    assert router.calls[0][1].timeout.ToMilliseconds() == 30_000


def test_what_is_not_to_be_stored_is_forgotten_once_its_end_was_read(start_router: StartRouter) -> None:
    router = start_router()

    with Client(router.address) as client:
        kept = client.generate("Hi")
        gone = client.generate("Hi", store=False)
        with client.stream("Hi", store=False) as stream:
            next(stream)

    assert kept.request_id not in router.cluster.forgotten
    assert router.cluster.forgotten == [gone.request_id]


def test_a_router_that_cannot_forget_costs_nobody_their_result(start_router: StartRouter) -> None:
    router = start_router(faults=[Fault(after=99), Fault()])

    with Client(router.address) as client:
        assert client.generate("Hi", store=False).text == TEXT

    assert router.cluster.forgotten == []


def test_background_requests_are_handed_over_and_fetched_later(start_router: StartRouter) -> None:
    router = start_router(faults=[Fault()])

    with Client(router.address) as client:
        accepted = client.submit("Hi")
        chat = client.submit_chat("Hi")
        completion = client.resume(accepted.request_id).result()

    assert completion.text == TEXT
    assert chat.request_id != accepted.request_id
    assert router.methods == ["Generate", "Generate", "Generate", "Resume"]


def test_chats_are_sent_as_messages(start_router: StartRouter) -> None:
    router = start_router()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

    with Client(router.address) as client:
        assert client.chat(messages).text == TEXT
        assert "".join(client.stream_chat("Hi").text()) == TEXT

    assert [message.role for message in router.calls[0][1].chat.messages] == ["system", "user"]


def test_calls_about_a_request_are_tried_again(start_router: StartRouter) -> None:
    router = start_router()
    with Client(router.address) as client:
        request_id = client.generate("Hi").request_id
        router.faults = [Fault(), Fault(code=grpc.StatusCode.DEADLINE_EXCEEDED)]

        status = client.get_request(request_id)
        client.forget(request_id)
        cancelled = client.cancel(request_id)

    assert router.methods[1:] == ["GetRequest"] * 3 + ["Forget", "Cancel"]
    assert (status.state, status.outputs[0].text, status.metadata) == (RequestState.DONE, TEXT, {"user": "7"})
    assert status.outputs[0].finish_reason is FinishReason.STOP
    assert status.submitted is not None
    assert status.submitted.timestamp() == 1_700_000_000
    assert status.deadline is None
    assert (cancelled.state, cancelled.end_offsets) == (RequestState.CANCELLED, (len(TEXT),))


def test_a_request_that_nobody_knows_is_told(start_router: StartRouter) -> None:
    with Client(start_router().address) as client:
        with pytest.raises(UnknownRequestError, match="no request 'lane-9'"):
            client.get_request("lane-9")
        with pytest.raises(UnknownRequestError):
            client.resume("lane-9").result()


def test_models_and_tokens_can_be_asked_for(start_router: StartRouter) -> None:
    with Client(start_router().address) as client:
        (model,) = client.models()
        tokens = client.tokenize("abc")

        assert (model.name, model.max_model_len, model.desired_replicas) == ("scripted", 128, 2)
        assert (tokens.token_ids, tokens.max_model_len) == ((97, 98, 99), 128)
        assert client.tokenize_chat("ab").token_ids == (97, 98)
        assert client.detokenize(tokens.token_ids) == "abc"


def test_health_is_told_of_every_router(start_router: StartRouter) -> None:
    well, ill, gone = start_router(), start_router(), unused_address()
    ill.serving = 2

    with Client([well.address, ill.address, gone]) as client:
        health = {entry.endpoint: entry for entry in client.health(timeout_s=5)}

    assert health[well.address].serving
    assert health[ill.address].status == "NOT_SERVING"
    assert health[gone].status == "UNREACHABLE"
    assert "UNAVAILABLE" in health[gone].reason


def test_threads_share_a_client(start_router: StartRouter) -> None:
    cluster = ScriptedCluster()
    routers = [start_router(cluster, faults=[Fault(after=n) for n in (3, 7, 0)]) for _ in range(2)]

    with Client([router.address for router in routers]) as client, ThreadPoolExecutor(6) as pool:
        texts = list(pool.map(lambda _: client.generate("Hi").text, range(24)))

    assert texts == [TEXT] * 24
    assert len(cluster.requests) == 24


def test_who_wants_to_know_hears_that_a_stream_reconnects(start_router: StartRouter) -> None:
    router, heard = start_router(faults=[Fault(after=6)]), list[Retry]()

    with Client(router.address, on_retry=heard.append) as client:
        completion = client.generate("Hi")

    assert completion.text == TEXT
    assert [(retry.method, retry.endpoint, retry.is_refusal) for retry in heard] == [
        ("Generate", router.address, False)
    ]
    assert heard[0].reason == "UNAVAILABLE: the router is going away"


def test_a_background_request_that_was_accepted_is_no_retry(start_router: StartRouter) -> None:
    heard: list[Retry] = []

    with Client(start_router().address, on_retry=heard.append) as client:
        client.submit("Hi")

    assert heard == []
