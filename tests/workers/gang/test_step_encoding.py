import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardline_protos import steps_pb2
from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.gang.answer_encoding import decode_answer, encode_answer
from shardline_workers.gang.step_encoding import decode_frame, encode_probe, encode_step, encode_stop
from shardline_workers.gang.step_frames import (
    Answer,
    FrameError,
    ProbedAnswer,
    ProbeFrame,
    SampledAnswer,
    StepFrame,
    StopFrame,
)
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, SlotChunk, SlotPlan, SlotStart
from tests.workers.gang.mirrored import a_mirror, mirrored_bytes

token_ids = st.integers(0, 2**31 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
samplings = st.builds(
    Sampling,
    temperature=finite,
    top_k=st.integers(0, 2**31),
    top_p=finite,
    min_p=finite,
    seed=st.integers(0, 2**64 - 1),
    max_tokens=st.integers(1, 2**20),
    min_tokens=st.integers(0, 2**20),
    stop_token_ids=st.frozensets(token_ids, max_size=3),
    num_logprobs=st.none() | st.integers(0, 20),
    num_prompt_logprobs=st.none() | st.integers(0, 20),
    logit_bias=st.lists(st.tuples(token_ids, st.floats(-100, 100)), max_size=3).map(tuple),
    repetition_penalty=finite,
    frequency_penalty=finite,
    presence_penalty=finite,
    bad_words=st.lists(st.lists(token_ids, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
)
requests = st.tuples(
    st.lists(st.integers(1, 30), min_size=1, max_size=14).map(tuple),
    samplings.map(lambda sampling: dataclasses.replace(sampling, max_tokens=1 + sampling.max_tokens % 9)),
    st.integers(1, 2),
)


def as_ranks_see(plan: SlotPlan) -> SlotPlan:
    """A plan without the names; where nothing is new, its place means nothing."""
    return SlotPlan(
        starts=plan.starts,
        chunks=tuple(
            SlotChunk(
                slot=chunk.slot,
                start=chunk.start,
                token_ids=chunk.token_ids,
                first_new_block=chunk.first_new_block if chunk.new_block_ids else 0,
                new_block_ids=chunk.new_block_ids,
                samples=chunk.samples,
                first_scored=chunk.first_scored,
                given_ids=chunk.given_ids,
            )
            for chunk in plan.chunks
        ),
    )


def decoded(data: bytes, *, group: int = 0) -> StepFrame:
    frame = decode_frame(data, group=group)
    assert isinstance(frame, StepFrame)
    return frame


@settings(max_examples=40, deadline=None)
@given(added=st.lists(requests, min_size=1, max_size=8), stride=st.integers(1, 4))
def test_whatever_the_scheduler_plans_arrives_and_makes_the_same_tensors(
    added: list[tuple[tuple[int, ...], Sampling, int]], stride: int
) -> None:
    limits = SchedulerLimits(
        max_model_len=24, max_num_seqs=3, max_num_batched_tokens=7, num_blocks=9, block_size=3, max_scored_tokens=4
    )
    scheduler, sent, received = Scheduler(limits), a_mirror(limits), a_mirror(limits)
    for number in range(60):
        if number % stride == 0 and added:
            prompt_ids, sampling, num_sequences = added.pop()
            sequences = (SequenceStart(),) * num_sequences
            scheduler.add(
                EngineRequest(request_id=str(number), prompt_ids=prompt_ids, sampling=sampling, sequences=sequences)
            )
        plan = scheduler.schedule()

        frame = decoded(encode_step((plan,), number=number, num_threads=2))

        assert frame.plan == as_ranks_see(plan)
        assert (frame.number, frame.num_threads, frame.checksum) == (number, 2, None)
        for mirror, seen in ((sent, plan), (received, frame.plan)):
            mirror.inputs.write(seen)
            mirror.sampler.write(seen, mirror.inputs.header)
        assert mirrored_bytes(sent) == mirrored_bytes(received)
        num_rows = sum(chunk.num_rows for chunk in plan.chunks)
        scheduler.complete(plan, [SampledToken(token_id=7, logprobs=TokenLogprobs(0.0))] * num_rows)


@given(sampling=samplings, ids=st.lists(token_ids, max_size=5).map(tuple))
def test_a_start_keeps_every_field_to_the_bit(sampling: Sampling, ids: tuple[int, ...]) -> None:
    start = SlotStart(slot=3, sequence=2, sampling=sampling, num_prompt_tokens=4, token_ids=ids)

    frame = decoded(encode_step((SlotPlan(starts=(start,)),), number=0, num_threads=1))

    assert frame.plan.starts == (start,)
    received = frame.plan.starts[0].sampling
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty"):
        assert str(getattr(received, name)) == str(getattr(sampling, name)), "-0.0 is another zero"


def test_every_field_of_sampling_has_its_place_in_the_frame() -> None:
    ours = {field.name for field in dataclasses.fields(Sampling)} - {"logit_bias"}

    theirs = {field.name for field in steps_pb2.Sampling.DESCRIPTOR.fields} - {"biased_ids", "biases"}

    assert ours == theirs


def test_each_data_parallel_group_gets_its_own_plan_and_checksum() -> None:
    plans = (SlotPlan(chunks=(one_token(slot=1),)), SlotPlan(), SlotPlan(chunks=(one_token(slot=4), one_token(slot=2))))

    checksums = [StateChecksum(block_tables=crc, slots=2**32 - 1 - crc) for crc in (0, 5, 2**32 - 1)]

    data = encode_step(plans, number=9, num_threads=1, checksums=checksums)

    frames = [decoded(data, group=group) for group in range(3)]
    assert [frame.plan for frame in frames] == list(plans)
    assert [frame.checksum for frame in frames] == checksums
    with pytest.raises(FrameError, match="plans of 3 groups, but none of group 3"):
        decode_frame(data, group=3)


def test_a_step_of_32_decodes_is_small() -> None:
    plan = SlotPlan(chunks=tuple(one_token(slot=slot, start=1000 + slot, token_id=40_000 + slot) for slot in range(32)))

    data = encode_step((plan,), number=100_000, num_threads=16)

    assert len(data) <= 250
    assert decoded(data).plan == plan


def test_probe_and_stop_are_frames_too() -> None:
    probe = encode_probe(number=4, num_tokens=16, num_threads=2)

    assert decode_frame(probe, group=1) == ProbeFrame(number=4, num_tokens=16, num_threads=2)
    assert decode_frame(encode_stop(), group=0) == StopFrame()


@pytest.mark.parametrize("data", [b"\xff\xff", b"", steps_pb2.Step(number=1).SerializeToString()])
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_frame(data, group=0)


@pytest.mark.parametrize(
    "groups",
    [
        steps_pb2.GroupPlan(slots=[1, 2], starts=[0]),
        steps_pb2.GroupPlan(slots=[1], starts=[0], token_ids=[5, 6]),
        steps_pb2.GroupPlan(slots=[1], starts=[0], token_ids=[5, 6], longer=[0]),
        steps_pb2.GroupPlan(slots=[1], starts=[0], token_ids=[5], growing=[0], first_new_blocks=[0]),
        steps_pb2.GroupPlan(
            slots=[1], starts=[0], token_ids=[5], growing=[0], first_new_blocks=[0], num_new_blocks=[2]
        ),
    ],
)
def test_a_plan_whose_columns_do_not_agree_is_refused(groups: steps_pb2.GroupPlan) -> None:
    data = steps_pb2.Frame(step=steps_pb2.Step(groups=[groups])).SerializeToString()

    with pytest.raises(FrameError):
        decode_frame(data, group=0)


logprobs = st.integers(0, 3).flatmap(
    lambda count: st.builds(
        TokenLogprobs,
        st.floats(allow_nan=False),
        st.tuples(*[token_ids] * count),
        st.tuples(*[st.floats(allow_nan=False)] * count),
    )
)
sampled_tokens = st.builds(
    SampledToken, token_id=token_ids, logprobs=st.none() | logprobs, error=st.none() | st.text(max_size=9)
)


@given(sampled=st.lists(sampled_tokens, max_size=8), number=st.integers(0, 2**40))
def test_what_was_sampled_arrives_to_the_bit(sampled: list[SampledToken], number: int) -> None:
    answer = SampledAnswer(number=number, sampled=sampled, busy_s=0.125)

    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "answer",
    [
        ProbedAnswer(number=3),
        ProbedAnswer(number=3, nonsense=""),
    ],
)
def test_other_answers_arrive(answer: Answer) -> None:
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"",
        steps_pb2.Answer(sampled=steps_pb2.Sampled(token_ids=[1], logprob_rows=[0])).SerializeToString(),
        steps_pb2.Answer(sampled=steps_pb2.Sampled(token_ids=[1], error_rows=[0])).SerializeToString(),
    ],
)
def test_bytes_that_are_no_answer_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_answer(data)


def one_token(*, slot: int, start: int = 5, token_id: int = 7) -> SlotChunk:
    return SlotChunk(slot=slot, start=start, token_ids=(token_id,), first_new_block=0, new_block_ids=(), samples=True)
