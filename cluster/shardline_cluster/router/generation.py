"""What a router does for clients, whichever protocol they speak: the one core under gRPC and, later, HTTP.

Knows no transport: it takes and gives the messages of `shardline.v1` and raises ShardlineErrors.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

from shardline_cluster.access.caller import Caller
from shardline_cluster.access.memory_rate_limiter import MemoryRateLimiter
from shardline_cluster.errors import ShardlineError
from shardline_cluster.queue.answers import Accepted, Duplicate
from shardline_cluster.queue.records import RequestInfo, SequenceLog, Submission
from shardline_cluster.router.admission.admission import Admission, refusal, submission_of
from shardline_cluster.router.admission.field_checks import check_no_unknown_fields
from shardline_cluster.router.admission.key_charges import KeyCharges
from shardline_cluster.router.admission.sampling_validation import ModelLimits
from shardline_cluster.router.admission.tokenized_request import tokenized
from shardline_cluster.router.admission.validation import check_against_model, check_request
from shardline_cluster.router.client_events import (
    accepted_event,
    events_of,
    payload_of,
    queued_event,
    readable_logs,
    status_of,
)
from shardline_cluster.router.model_directory import ModelDirectory, ServedLane, ServedModel
from shardline_cluster.router.router_telemetry import RequestWatch, RouterTelemetry
from shardline_cluster.router.streams.client_stream import ClientStream
from shardline_cluster.router.streams.token_streams import TokenStreams
from shardline_cluster.router.text_assembly import STATES, TextAssembly
from shardline_cluster.router.text_threads import TextThreads
from shardline_cluster.telemetry.log_fields import log_as_about
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload

FORGET_AFTER_S = 5.0  # a client that lost the connection together with the finish comes back within this
RequestOfId = pb.ResumeRequest | pb.CancelRequest | pb.GetRequestRequest | pb.ForgetRequest

LONG_LOG_TOKENS = 1000  # above this a replay is run off the loop


class Generation:
    """Requests: accepted, streamed, resumed, cancelled, looked at, forgotten."""

    def __init__(
        self,
        directory: ModelDirectory,
        threads: TextThreads,
        telemetry: RouterTelemetry | None = None,
        charges: KeyCharges | None = None,
    ) -> None:
        """`charges`: of keys with limits; by default this router counts alone."""
        self._directory = directory
        self._threads = threads
        self._telemetry = telemetry or RouterTelemetry()
        self._charges = charges or KeyCharges(MemoryRateLimiter())

    async def generate(self, request: pb.GenerateRequest, caller: Caller) -> AsyncGenerator[pb.GenerateEvent, None]:
        """Accepts a request, then tells what happens to it until its end. To be closed where it is not read to it.

        Raises:
            ShardlineError: it was not accepted, or its stream cannot go on.
        """
        check_request(request)
        served = self._directory.find(request.model)
        with self._telemetry.generate(request, served.deployment.name, caller.traceparent) as watch:
            submission = await self._admit(request, served, caller, traceparent=watch.traceparent)
            answer, stream = await self._submit(submission, served.lane.streams, caller)
            log_as_about(answer.info.id)
            watch.accepted(answer, served.deployment.name)
            try:
                yield accepted_event(answer)
                if isinstance(answer, Accepted):
                    yield queued_event(answer)
                if stream is not None:
                    async with aclosing(self._events(stream, served.lane, caller, watch)) as events:
                        async for event in events:
                            yield event
            finally:
                if stream is not None:
                    stream.leave()

    async def resume(self, request: pb.ResumeRequest, caller: Caller) -> AsyncGenerator[pb.GenerateEvent, None]:
        """Tells the rest of a request after a cursor. To be closed where it is not read to the end.

        Raises:
            ShardlineError: there is no such request, or its stream cannot go on from there.
        """
        lane = self._lane_of(request)
        log_as_about(request.request_id)
        with self._telemetry.resume(request.request_id, caller.traceparent) as watch:
            stream = lane.streams.read(request.request_id, caller.tenant, request.cursor)
            try:
                async with aclosing(self._events(stream, lane, caller, watch, resumed=True)) as events:
                    async for event in events:
                        yield event
            finally:
                stream.leave()

    async def cancel(self, request: pb.CancelRequest, caller: Caller) -> pb.CancelResponse:
        """Ends a request now, or tells the end that it has.

        Raises:
            ShardlineError: there is no such request, or no answer.
        """
        lane = self._lane_of(request)
        ended = await lane.streams.cancel(request.request_id, caller.tenant)
        self._charges.settle(caller, ended.info.submission, ended.end)
        return pb.CancelResponse(state=STATES[ended.end.state], end_offsets=ended.end.offsets)

    async def get_request(self, request: pb.GetRequestRequest, caller: Caller) -> pb.RequestStatus:
        """A request as it is now, with everything that it has generated.

        Raises:
            ShardlineError: there is no such request, or no answer.
        """
        lane = self._lane_of(request)
        snapshot = await lane.streams.look(request.request_id, caller.tenant)
        if snapshot.end is not None:
            self._charges.settle(caller, snapshot.info.submission, snapshot.end)
        assembly = _assembly(lane, snapshot.info, payload_of(snapshot.info))
        logs, closed = readable_logs(snapshot)
        texts = await self._replay(assembly, logs, closed)
        return status_of(snapshot, logs, texts, assembly)

    async def forget(self, request: pb.ForgetRequest, caller: Caller) -> pb.ForgetResponse:
        """Deletes an ended request.

        Raises:
            ShardlineError: there is no such request, it has not ended, or no answer.
        """
        lane = self._lane_of(request)
        await lane.streams.forget(request.request_id, caller.tenant)
        return pb.ForgetResponse()

    def _lane_of(self, request: RequestOfId) -> ServedLane:
        check_no_unknown_fields(request)
        return self._directory.of_request(request.request_id)

    async def _admit(
        self, request: pb.GenerateRequest, served: ServedModel, caller: Caller, *, traceparent: str
    ) -> Submission:
        text, streams = served.text, served.lane.streams
        run = self._threads.run_chat if request.WhichOneof("prompt") == "chat" else self._threads.run
        with self._telemetry.metrics.text_of(served.deployment.name):
            request_tokens = await run(tokenized, text, request)
        limits = ModelLimits(
            vocab_size=text.vocab_size,
            max_model_len=served.max_model_len,
            max_num_seqs=served.deployment.options.max_num_seqs,
        )
        check_against_model(request, len(request_tokens.prompt_ids), limits)
        admission = Admission(
            model=served.deployment.name,
            lane=served.deployment.lane,
            drawn=streams.identity,
            tenant=caller.tenant,
            terms=streams.queue.terms,
            max_model_len=served.max_model_len,
            defaults=text.defaults,
            time_remaining_s=caller.time_remaining_s,
            traceparent=traceparent,
        )
        return submission_of(request, request_tokens, admission)

    async def _submit(
        self, submission: Submission, streams: TokenStreams, caller: Caller
    ) -> tuple[Accepted | Duplicate, ClientStream | None]:
        """Every new request is paid for, and nothing else."""
        is_known = partial(streams.knows, submission.id, submission.tenant)
        charge = await self._charges.charge(caller, submission, is_known=is_known)
        answer, stream = await streams.submit(submission)
        try:
            if not isinstance(answer, Accepted):
                await self._charges.take_back(caller, charge)
            elif charge is None:  # it was there a moment ago, and somebody has deleted it since
                await self._charge_late(submission, streams, caller)
        except BaseException:
            if stream is not None:
                stream.leave()
            raise
        if not isinstance(answer, Accepted | Duplicate):
            raise refusal(answer)
        return answer, stream

    async def _charge_late(self, submission: Submission, streams: TokenStreams, caller: Caller) -> None:
        """Charges for a request that was accepted, and ends it where there is no room for it."""
        try:
            await self._charges.charge_new(caller, submission)
        except ShardlineError:
            await streams.cancel(submission.id, submission.tenant)
            raise

    async def _events(
        self, stream: ClientStream, lane: ServedLane, caller: Caller, watch: RequestWatch, *, resumed: bool = False
    ) -> AsyncGenerator[pb.GenerateEvent, None]:
        info, before, closed = await stream.opened()
        payload = payload_of(info)
        assembly = _assembly(lane, info, payload)
        watch.opened(payload.model, num_outputs=assembly.num_outputs, resumed=resumed)
        await self._replay(assembly, before, closed)
        while (update := await stream.next_update()) is not None:
            watch.saw(update)
            if update.end is not None:
                self._charges.settle(caller, info.submission, update.end)
            with self._telemetry.metrics.text_of(payload.model):
                events = tuple(events_of(update, assembly, info))
            for event in events:
                yield event
        if not info.submission.store:
            lane.streams.forget_later(info.id, info.submission.tenant, after_s=FORGET_AFTER_S)

    async def _replay(
        self, assembly: TextAssembly, logs: Sequence[SequenceLog], closed: Sequence[bool]
    ) -> tuple[str, ...]:
        if sum(log.num_tokens for log in logs) <= LONG_LOG_TOKENS:
            return assembly.replay(logs, closed)
        return await self._threads.run(assembly.replay, logs, closed)


def _assembly(lane: ServedLane, info: RequestInfo, payload: RequestPayload) -> TextAssembly:
    return TextAssembly(lane.text, payload, num_logprobs=info.submission.num_logprobs)
