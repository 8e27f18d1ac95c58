"""What a turn's tokens, stops and errors mean for the requests that the leader holds."""

import dataclasses

import pytest

from shardline_cluster.queue.log_encoding import unpack_ids
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.engine_driver import EngineDriver, Turn
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.held_requests import HeldRequests
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.running_batch import RunningBatch
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Capacity, EngineRequest, SequenceStep, StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.replica.queue_replies import claim_answer, granted, reply
from tests.cluster.replica.virtual_time import VirtualStepThread


class Batch:
    """One request of so many sequences with the stop string END, claimed and started."""

    def __init__(self) -> None:
        thread = VirtualStepThread()
        engine = SimulatedEngine(SimulatedEngineConfig(), sleep=thread.sleep)
        self.held = HeldRequests(incarnation="leader-1", terms=QueueTerms())
        self.driver = EngineDriver(engine, thread, ProgressWatch(least_limit_s=5.0))
        self.batch = RunningBatch(self.held, self.driver, simulated_text_model(100), incarnation="leader-1")

    async def start(self, num_sequences: int) -> HeldRequest:
        payload = RequestPayload(prompt_ids=[1, 2, 3])
        payload.sampling.stop.append("END")
        request = granted("a", *[()] * num_sequences)
        submission = dataclasses.replace(request.info.submission, payload=payload.SerializeToString())
        request = dataclasses.replace(request, info=dataclasses.replace(request.info, submission=submission))
        self.held.next_claim(free_slots=8, free_tokens=100, nonce=b"12345678")
        changes = self.held.claimed(reply(claim_answer(request)), 0.0)
        await self.batch.apply(changes)
        return changes.started[0]

    def bring(self, request: HeldRequest, text: str, *, sequence: int = 0, error: str | None = None) -> None:
        """A turn with these tokens, one a byte, or with an error."""
        step = SequenceStep(request_id=request.key, sequence=sequence, token_ids=tuple(text.encode()), error=error)
        self.batch.take(Turn(StepResult(sequences=(step,)), Capacity(1, 1), has_work=True))


@pytest.fixture
def batch() -> Batch:
    return Batch()


async def test_tokens_after_a_stop_string_are_those_of_a_step_that_had_begun(batch: Batch) -> None:
    request = await batch.start(1)

    batch.bring(request, "the END")
    batch.bring(request, "!")

    assert bytes(unpack_ids(bytes(request.sequences[0].ids))) == b"the END"
    assert request.sequences[0].finish is not None
    assert request.sequences[0].finish.stop == "END"


async def test_an_error_told_for_a_sequence_that_has_stopped_fails_the_others(batch: Batch) -> None:
    """The engine names any sequence that it still computed when the step began."""
    request = await batch.start(2)

    batch.bring(request, "the END", sequence=0)
    batch.bring(request, "", sequence=0, error="NaN in its logits")

    assert request.error == "NaN in its logits"


async def test_an_error_after_the_last_sequence_has_stopped_changes_nothing(batch: Batch) -> None:
    request = await batch.start(1)

    batch.bring(request, "the END")
    batch.bring(request, "", error="NaN in its logits")

    assert request.error == ""


async def test_the_engine_shares_prefixes_within_a_tenant(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[EngineRequest] = []
    monkeypatch.setattr(batch.driver, "start", added.append)

    request = await batch.start(1)

    assert [one.cache_salt for one in added] == [request.info.submission.tenant]
