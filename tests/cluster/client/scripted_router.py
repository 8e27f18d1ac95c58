"""Routers on loopback that serve scripted requests and fail as they are told: the other side of the client's tests.

A `ScriptedCluster` knows what each request generates; any number of `ScriptedRouter`s stream it, from any cursor. Each
router takes its faults from a list, one for each call, and serves well when the list is empty.
"""

# ruff: noqa: N802 -- methods of a servicer carry the names of the protobuf service

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from shardline_protos import generation_pb2 as pb
from shardline_protos.generation_pb2_grpc import GenerationServicer, add_GenerationServicer_to_server

Piece = tuple[int, str]  # a token id and the text that it completes


def pieces_of(text: str, *, first_id: int = 100) -> list[Piece]:
    """A token a character, with ids that rise, so that a repeat or a gap shows in the ids as well."""
    return [(first_id + index, character) for index, character in enumerate(text)]


@dataclass(frozen=True)
class Fault:
    """The end of one call: after so many events, with this code; no code ends it as if all was well."""

    after: int = 0
    code: grpc.StatusCode | None = grpc.StatusCode.UNAVAILABLE
    details: str = "the router is going away"
    retry_after_ms: int | None = None


@dataclass(frozen=True)
class Lie:
    """One call whose events are changed on their way."""

    change: Callable[[list[pb.GenerateEvent]], list[pb.GenerateEvent]]


@dataclass
class ScriptedRequest:
    """What one request generates, whoever streams it."""

    id: str
    sequences: list[list[Piece]]
    tail: str = ""  # text that the end of the first sequence sets free
    state: int = pb.REQUEST_STATE_DONE
    error: str = ""
    cancelled: threading.Event = field(default_factory=threading.Event)

    def events(self, cursor: bytes, *, with_acceptance: bool) -> Iterator[pb.GenerateEvent]:
        """Everything after a cursor, sequences in turn, a token an event."""
        offsets = [int(part) for part in cursor.split(b",")] if cursor else [0] * len(self.sequences)
        if with_acceptance:
            accepted = pb.Accepted(model="scripted", prompt_tokens=3, seed=7)
            yield self._event(offsets, accepted=accepted)
            yield self._event(offsets, queued=pb.Queued(position=0))
        yield self._event(offsets, started=pb.Started(attempt=1))
        yield from self._all_tokens(offsets)
        yield self._event(offsets, finished=self.finished())

    def _all_tokens(self, offsets: list[int]) -> Iterator[pb.GenerateEvent]:
        for round_number in range(max(len(s) for s in self.sequences) + 1):
            for sequence, pieces in enumerate(self.sequences):
                if round_number < len(pieces) and offsets[sequence] == round_number:
                    yield self._token(offsets, sequence)
                if round_number == len(pieces):
                    yield self._end_of_sequence(offsets, sequence)

    def _token(self, offsets: list[int], sequence: int) -> pb.GenerateEvent:
        offset = offsets[sequence]
        token_id, text = self.sequences[sequence][offset]
        offsets[sequence] += 1
        return self._event(offsets, tokens=pb.Tokens(sequence=sequence, offset=offset, token_ids=[token_id], text=text))

    def _end_of_sequence(self, offsets: list[int], sequence: int) -> pb.GenerateEvent:
        return self._event(
            offsets,
            tokens=pb.Tokens(
                sequence=sequence,
                offset=len(self.sequences[sequence]),
                text=self.tail if sequence == 0 else "",
                finish_reason=pb.FINISH_REASON_STOP,
            ),
        )

    def finished(self) -> pb.Finished:
        """The end, which counts what was generated."""
        num_tokens = [len(pieces) for pieces in self.sequences]
        return pb.Finished(
            state=pb.RequestState.Name(self.state),
            sequences=[
                pb.SequenceResult(sequence=s, finish_reason=pb.FINISH_REASON_STOP, num_tokens=n)
                for s, n in enumerate(num_tokens)
            ],
            usage=pb.Usage(prompt_tokens=3, completion_tokens=sum(num_tokens)),
            error=self.error,
        )

    def _event(self, offsets: Sequence[int], **kind: Any) -> pb.GenerateEvent:
        return pb.GenerateEvent(request_id=self.id, cursor=",".join(str(o) for o in offsets).encode(), **kind)


class ScriptedCluster:
    """What all routers know: one request for each idempotency key."""

    def __init__(self, sequences: Sequence[str] = ("Hello, world!",), **options: Any) -> None:
        self._sequences = [pieces_of(text, first_id=1000 * s + 100) for s, text in enumerate(sequences)]
        self._options = options
        self._lock = threading.Lock()
        self.requests: dict[str, ScriptedRequest] = {}
        self.keys: dict[str, str] = {}
        self.forgotten: list[str] = []

    def submit(self, key: str) -> ScriptedRequest:
        """The request of this key, new or not."""
        with self._lock:
            if key not in self.keys:
                request = ScriptedRequest(f"lane-{len(self.keys):032x}", self._sequences, **self._options)
                self.keys[key] = request.id
                self.requests[request.id] = request
            return self.requests[self.keys[key]]

    def find(self, request_id: str) -> ScriptedRequest | None:
        """The request of this id."""
        return self.requests.get(request_id)


class ScriptedRouter(GenerationServicer):
    """One router, up from birth until `stop`."""

    def __init__(
        self,
        cluster: ScriptedCluster,
        *,
        faults: Sequence[Fault | Lie] = (),
        port: int = 0,
        pause_after: int | None = None,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.cluster = cluster
        self.faults = list(faults)
        self.calls: list[tuple[str, Any]] = []
        self.time_limits: list[float | None] = []
        self.metadata: list[dict[str, str]] = []
        self.serving = 1
        self.pause_after = pause_after  # events after which streams wait for `go_on`
        self.paused = threading.Event()
        self.go_on = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
        add_GenerationServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_generic_rpc_handlers((self._health_handler(),))
        self.address = f"127.0.0.1:{self._listen(f'127.0.0.1:{port}', credentials)}"
        self._server.start()

    @property
    def methods(self) -> list[str]:
        """Names of the calls that came, in order."""
        return [method for method, _ in self.calls]

    def stop(self) -> None:
        """Ends all streams and the router at once; a paused one goes on when it is cut, and so reaches nobody."""
        self._server.stop(0).wait()

    # --- the service ---

    def Generate(self, request: pb.GenerateRequest, context: Any) -> Iterator[pb.GenerateEvent]:
        self._note("Generate", request, context)
        fault = self._next_fault()
        if isinstance(fault, Fault) and fault.after == 0:
            self._fail(fault, context)
            return
        if request.model not in ("", "scripted"):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model is named {request.model!r}; there is: scripted")
        scripted = self.cluster.submit(request.idempotency_key)
        events = list(scripted.events(b"", with_acceptance=True))
        yield from self._serve(events[:1] if request.background else events, fault, scripted, context)

    def Resume(self, request: pb.ResumeRequest, context: Any) -> Iterator[pb.GenerateEvent]:
        self._note("Resume", request, context)
        fault = self._next_fault()
        scripted = self._find(request.request_id, context)
        yield from self._serve(list(scripted.events(request.cursor, with_acceptance=False)), fault, scripted, context)

    def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelResponse:
        self._note("Cancel", request, context)
        self._fail_unary(context)
        scripted = self._find(request.request_id, context)
        scripted.state = pb.REQUEST_STATE_CANCELLED
        scripted.cancelled.set()
        self.go_on.set()
        return pb.CancelResponse(state=pb.REQUEST_STATE_CANCELLED, end_offsets=[len(s) for s in scripted.sequences])

    def GetRequest(self, request: pb.GetRequestRequest, context: Any) -> pb.RequestStatus:
        self._note("GetRequest", request, context)
        self._fail_unary(context)
        scripted = self._find(request.request_id, context)
        status = pb.RequestStatus(
            request_id=scripted.id,
            model="scripted",
            state=pb.REQUEST_STATE_DONE,
            outputs=[
                pb.SequenceOutput(sequence=s, token_ids=[i for i, _ in pieces], text="".join(t for _, t in pieces))
                for s, pieces in enumerate(scripted.sequences)
            ],
            finished=scripted.finished(),
            metadata={"user": "7"},
            prompt_tokens=3,
        )
        status.submitted.FromSeconds(1_700_000_000)
        return status

    def Forget(self, request: pb.ForgetRequest, context: Any) -> pb.ForgetResponse:
        self._note("Forget", request, context)
        self._fail_unary(context)
        self.cluster.forgotten.append(request.request_id)
        return pb.ForgetResponse()

    def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        self._note("ListModels", request, context)
        self._fail_unary(context)
        return pb.ListModelsResponse(
            models=[pb.Model(name="scripted", max_model_len=128, ready_replicas=1, desired_replicas=2)]
        )

    def Tokenize(self, request: pb.TokenizeRequest, context: Any) -> pb.TokenizeResponse:
        self._note("Tokenize", request, context)
        text = request.text if request.WhichOneof("prompt") == "text" else request.chat.messages[0].content
        return pb.TokenizeResponse(token_ids=[ord(character) for character in text], max_model_len=128)

    def Detokenize(self, request: pb.DetokenizeRequest, context: Any) -> pb.DetokenizeResponse:
        self._note("Detokenize", request, context)
        return pb.DetokenizeResponse(text="".join(chr(i) for i in request.token_ids))

    # --- inside ---

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, credentials)

    def _serve(
        self, events: list[pb.GenerateEvent], fault: Fault | Lie | None, scripted: ScriptedRequest, context: Any
    ) -> Iterator[pb.GenerateEvent]:
        served = fault.change(events) if isinstance(fault, Lie) else events
        for index, event in enumerate(served):
            if isinstance(fault, Fault) and index == fault.after:
                self._fail(fault, context)
                return
            if index == self.pause_after:
                self.paused.set()
                self._wait_to_go_on(context)
                if scripted.cancelled.is_set():
                    yield from self._cancelled_end(event, scripted)
                    return
            yield event

    def _wait_to_go_on(self, context: Any) -> None:
        """A call that has ended is not waited for: gRPC takes nothing of it any more."""
        while context.is_active() and not self.go_on.wait(0.01):
            pass

    def _cancelled_end(self, following: pb.GenerateEvent, scripted: ScriptedRequest) -> Iterator[pb.GenerateEvent]:
        finished = pb.Finished(
            state=pb.REQUEST_STATE_CANCELLED,
            sequences=[pb.SequenceResult(sequence=0, num_tokens=following.tokens.offset)],
        )
        yield pb.GenerateEvent(request_id=scripted.id, cursor=b"0", finished=finished)

    def _note(self, method: str, request: Any, context: Any) -> None:
        self.calls.append((method, request))
        self.time_limits.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))

    def _next_fault(self) -> Fault | Lie | None:
        return self.faults.pop(0) if self.faults else None

    def _fail_unary(self, context: Any) -> None:
        fault = self._next_fault()
        if isinstance(fault, Fault):
            self._fail(fault, context)

    def _fail(self, fault: Fault, context: Any) -> None:
        if fault.retry_after_ms is not None:
            context.set_trailing_metadata((("retry-after-ms", str(fault.retry_after_ms)),))
        if fault.code is not None:
            context.abort(fault.code, fault.details)

    def _find(self, request_id: str, context: Any) -> ScriptedRequest:
        scripted = self.cluster.find(request_id)
        if scripted is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no request {request_id!r}")
        return cast("ScriptedRequest", scripted)

    def _health_handler(self) -> grpc.GenericRpcHandler:
        def check(request: bytes, _context: Any) -> bytes:
            assert StringValue.FromString(request).value == "shardline.v1.Generation"
            return Int32Value(value=self.serving).SerializeToString()

        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}
        )
