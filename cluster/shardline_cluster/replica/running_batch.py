"""Between what is held and what the engine computes: starts, stops, and the tokens of each step."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs, unpack_ids
from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.replica.changes import Changes
from shardline_cluster.replica.engine_driver import EngineDriver, Turn
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.held_requests import HeldRequests
from shardline_cluster.replica.output_watch import OutputWatch
from shardline_cluster.replica.prompt_log import PROMPT_FINISH, UNKNOWN, needs_no_more, prompt_log, wants_scores
from shardline_cluster.replica.request_plan import RequestPlan, UnreadablePayloadError, read_plan
from shardline_workers.engine import EngineRequest, SequenceStart, SequenceStep, TokenLogprobs
from shardline_workers.text.text_model import TextModel

_LOG = logging.getLogger(__name__)


class RunningBatch:
    """The requests that this leader has its engine compute, by their keys."""

    def __init__(self, held: HeldRequests, driver: EngineDriver, text: TextModel, *, incarnation: str) -> None:
        self._held = held
        self._driver = driver
        self._text = text
        self._incarnation = incarnation
        self._watches: dict[str, OutputWatch] = {}

    async def apply(self, changes: Changes) -> None:
        """Drops and starts what an answer of the queue says."""
        for dropped in changes.dropped:
            self._driver.cancel(dropped.request.key)
            self._watches.pop(dropped.request.key, None)
            if dropped.reason != "DONE":
                told = {"request_id": dropped.request.id}
                _LOG.info("request %s leaves: %s", dropped.request.id, dropped.reason, extra=told)
        for request in changes.started:
            await self._start(request)

    def take(self, turn: Turn) -> None:
        """Records what a turn brought."""
        for key, reason in turn.refused:
            self._held.fail(key, reason)
        for step in turn.result.sequences:
            self._take_step(step)

    async def _start(self, request: HeldRequest) -> None:
        try:
            plan = read_plan(request, self._text.eos_ids)
        except UnreadablePayloadError as error:
            self._held.fail(request.key, str(error))
            return
        watch = OutputWatch(plan, tokenizer=self._text.tokenizer)
        for index, sequence in enumerate(request.sequences[: plan.num_outputs]):
            if sequence.finish is None:
                finish = await watch.replay(index, unpack_ids(bytes(sequence.ids)))
                self._held.record(request.key, index, ids=b"", finish=finish)
        if needs_no_more(request, plan):
            self._held.record(request.key, plan.num_outputs, ids=b"", finish=PROMPT_FINISH)
        if self._held.get(request.key) is request and not request.finished:
            self._watches[request.key] = watch
            self._driver.start(self._engine_request(request, plan))

    def _engine_request(self, request: HeldRequest, plan: RequestPlan) -> EngineRequest:
        return EngineRequest(
            request_id=request.key,
            prompt_ids=plan.prompt_ids,
            sampling=plan.sampling if wants_scores(request, plan) else replace(plan.sampling, num_prompt_logprobs=None),
            sequences=tuple(
                SequenceStart(generated_ids=unpack_ids(bytes(s.ids)), finished=s.finish is not None)
                for s in request.sequences[: plan.num_outputs]
            ),
            generation=f"{self._incarnation}/{request.key}",
            cache_salt=request.info.submission.tenant,
        )

    def _take_step(self, step: SequenceStep) -> None:
        watch, request = self._watches.get(step.request_id), self._held.get(step.request_id)
        if watch is None or request is None:
            return  # dropped while the step ran
        if request.finished:
            return  # a stop string ended it while this step was under way
        if step.error is not None:
            self._held.fail(step.request_id, step.error)
            self._driver.cancel(step.request_id)
            return
        if step.prompt_logprobs is not None:
            self._record_prompt(request, watch.plan, step.prompt_logprobs)
        if request.sequences[step.sequence].finish is not None:
            return
        tokens = watch.feed(step.sequence, step.token_ids, step.finish)
        if tokens.found_stop:
            self._driver.stop_sequence(step.request_id, step.sequence)
        self._record(request, step, num_tokens=tokens.num_tokens, finish=tokens.finish)

    def _record_prompt(self, request: HeldRequest, plan: RequestPlan, scores: Sequence[TokenLogprobs]) -> None:
        ids, logprobs = prompt_log(request, plan, scores)
        self._held.record(request.key, plan.num_outputs, ids=ids, logprobs=logprobs, finish=PROMPT_FINISH)

    def _record(
        self, request: HeldRequest, step: SequenceStep, *, num_tokens: int, finish: SequenceFinish | None
    ) -> None:
        self._held.record(
            step.request_id,
            step.sequence,
            ids=pack_ids(step.token_ids[:num_tokens]),
            logprobs=_packed_logprobs(step, num_tokens, request.info.submission.num_logprobs),
            finish=finish,
        )


def _packed_logprobs(step: SequenceStep, num_tokens: int, num_logprobs: int | None) -> bytes:
    if num_logprobs is None:
        return b""
    # The log has one width: where only the prompt's were asked for, the output's are told as unknown.
    known = step.logprobs[:num_tokens] or (UNKNOWN,) * num_tokens
    pairs = zip(step.token_ids[:num_tokens], known, strict=True)
    return b"".join(pack_logprobs(i, p.chosen, p.top_ids, p.top, num_logprobs=num_logprobs) for i, p in pairs)
