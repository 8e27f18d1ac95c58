"""The leader's frames as bytes and back: see steps.proto. A step of 32 decodes takes about 200 bytes.

Encoding and decoding lie on every step's way, so both go by columns and touch single chunks as little as they can.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TypeVar

from google.protobuf.message import DecodeError

from shardline_protos import steps_pb2
from shardline_workers.engine import Sampling
from shardline_workers.gang.step_channel import MAX_FRAME_BYTES
from shardline_workers.gang.step_frames import Frame, FrameError, ProbeFrame, StepFrame, StopFrame
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.step_plan import SlotChunk, SlotPlan, SlotStart

_SCALARS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "seed",
    "max_tokens",
    "min_tokens",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)
_OPTIONAL_SCALARS = ("num_logprobs", "num_prompt_logprobs")
_NOTHING: tuple[int, tuple[int, ...]] = (0, ())
_First = TypeVar("_First")


def encode_step(
    plans: Sequence[SlotPlan], *, number: int, num_threads: int, checksums: Sequence[StateChecksum] | None = None
) -> bytes:
    """One step of every data-parallel group, in their order.

    Args:
        plans: of each group; no chunks where it computes a dummy.
        number: of the step.
        num_threads: for each rank to compute it on.
        checksums: of each group's mirrored state before its plan, where ranks shall compare theirs.

    Raises:
        FrameError: it is larger than a frame may be.
    """
    frame = steps_pb2.Frame()
    step = frame.step
    step.number, step.num_threads = number, num_threads
    for plan in plans:
        _write_plan(plan, step.groups.add())
    if checksums is not None:
        for group, checksum in zip(step.groups, checksums, strict=True):
            _write_checksum(checksum, group.checksum)
    return _sized(frame.SerializeToString())


def encode_probe(*, number: int, num_tokens: int, num_threads: int) -> bytes:
    """A probe of so many tokens."""
    probe = steps_pb2.Probe(number=number, num_tokens=num_tokens, num_threads=num_threads)
    return steps_pb2.Frame(probe=probe).SerializeToString()


def encode_stop() -> bytes:
    """The last frame."""
    return steps_pb2.Frame(stop=steps_pb2.Stop()).SerializeToString()


def decode_frame(data: bytes, *, group: int) -> Frame:
    """What the leader says to a rank of this data-parallel group.

    Raises:
        FrameError: these bytes are no frame, or one without this group.
    """
    try:
        frame = steps_pb2.Frame.FromString(data)
    except DecodeError as error:
        raise FrameError(f"{len(data)} bytes are no frame of the step channel: {error}") from error
    kind = frame.WhichOneof("kind")
    if kind == "step":
        return _read_step(frame.step, group)
    if kind == "probe":
        probe = frame.probe
        return ProbeFrame(number=probe.number, num_tokens=probe.num_tokens, num_threads=probe.num_threads)
    if kind == "stop":
        return StopFrame()
    raise FrameError(f"a frame of {len(data)} bytes says neither step nor probe nor stop")


def _sized(data: bytes) -> bytes:
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(
            f"a step takes {len(data)} bytes, more than the {MAX_FRAME_BYTES} of a frame: lower max_num_batched_tokens"
        )
    return data


def _write_plan(plan: SlotPlan, to: steps_pb2.GroupPlan) -> None:
    for start in plan.starts:
        _write_start(start, to.slot_starts.add())
    chunks = plan.chunks
    to.slots.extend([chunk.slot for chunk in chunks])
    to.starts.extend([chunk.start for chunk in chunks])
    to.token_ids.extend(chain.from_iterable([chunk.token_ids for chunk in chunks]))
    for index, chunk in enumerate(chunks):
        if len(chunk.token_ids) != 1:
            to.longer.append(index)
            to.num_tokens.append(len(chunk.token_ids))
        if chunk.new_block_ids:
            to.growing.append(index)
            to.first_new_blocks.append(chunk.first_new_block)
            to.num_new_blocks.append(len(chunk.new_block_ids))
            to.new_block_ids.extend(chunk.new_block_ids)
        if not chunk.samples:
            to.unsampled.append(index)
        if chunk.given_ids:
            to.scored.append(index)
            to.first_scored.append(chunk.first_scored)
            to.num_given.append(len(chunk.given_ids))
            to.given_ids.extend(chunk.given_ids)


def _write_checksum(checksum: StateChecksum, to: steps_pb2.StateChecksum) -> None:
    assert checksum.slots is not None, "the leader mirrors all of the state"
    to.block_tables, to.slots = checksum.block_tables, checksum.slots


def _read_checksum(checksum: steps_pb2.StateChecksum) -> StateChecksum:
    return StateChecksum(block_tables=checksum.block_tables, slots=checksum.slots)


def _write_start(start: SlotStart, to: steps_pb2.SlotStart) -> None:
    to.slot, to.sequence, to.num_prompt_tokens = start.slot, start.sequence, start.num_prompt_tokens
    to.token_ids.extend(start.token_ids)
    sampling = start.sampling
    for name in _SCALARS:
        setattr(to.sampling, name, getattr(sampling, name))
    for name in _OPTIONAL_SCALARS:
        if (value := getattr(sampling, name)) is not None:
            setattr(to.sampling, name, value)
    to.sampling.stop_token_ids.extend(sorted(sampling.stop_token_ids))
    for token_id, bias in sampling.logit_bias:
        to.sampling.biased_ids.append(token_id)
        to.sampling.biases.append(bias)
    for word in sampling.bad_words:
        to.sampling.bad_words.add(ids=word)


def _read_step(step: steps_pb2.Step, group: int) -> StepFrame:
    if group >= len(step.groups):
        raise FrameError(f"step {step.number} has plans of {len(step.groups)} groups, but none of group {group}")
    of_group = step.groups[group]
    return StepFrame(
        number=step.number,
        num_threads=step.num_threads,
        plan=SlotPlan(
            starts=tuple([_read_start(start) for start in of_group.slot_starts]), chunks=tuple(_read_chunks(of_group))
        ),
        checksum=_read_checksum(of_group.checksum) if of_group.HasField("checksum") else None,
    )


def _read_chunks(plan: steps_pb2.GroupPlan) -> Iterator[SlotChunk]:
    token_ids = list(plan.token_ids)
    num_tokens = dict(_pairs("longer", plan.longer, plan.num_tokens))
    new_blocks = _read_runs("growing", plan.growing, (plan.first_new_blocks, plan.num_new_blocks), plan.new_block_ids)
    given = _read_runs("scored", plan.scored, (plan.first_scored, plan.num_given), plan.given_ids)
    unsampled = frozenset(plan.unsampled)
    end = 0
    for index, (slot, start) in enumerate(_pairs("slots", plan.slots, plan.starts)):
        begin, end = end, end + num_tokens.get(index, 1)
        first_new_block, new_block_ids = new_blocks.get(index, _NOTHING)
        first_scored, given_ids = given.get(index, _NOTHING)
        yield SlotChunk(
            slot=slot,
            start=start,
            token_ids=tuple(token_ids[begin:end]),
            first_new_block=first_new_block,
            new_block_ids=new_block_ids,
            samples=index not in unsampled,
            first_scored=first_scored,
            given_ids=given_ids,
        )
    if end != len(token_ids):
        raise FrameError(f"a plan's chunks have {end} tokens, but {len(token_ids)} came")


def _read_runs(
    name: str, indices: Sequence[int], columns: tuple[Sequence[int], Sequence[int]], values: Sequence[int]
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Chunk → its first place, and as many of the values as its length says."""
    firsts, lengths = columns
    if (total := sum(lengths)) != len(values):
        raise FrameError(f"a plan's {name!r} chunks bring {total} values, but {len(values)} came")
    remaining = iter(values)
    places = _pairs(name, indices, firsts)
    return {
        index: (first, tuple(islice(remaining, length)))
        for (index, first), length in _pairs(name, list(places), lengths)
    }


def _pairs(name: str, first: Sequence[_First], second: Sequence[int]) -> Iterable[tuple[_First, int]]:
    if len(first) != len(second):
        raise FrameError(f"the columns beside {name!r} of a plan have {len(first)} and {len(second)} entries")
    return zip(first, second, strict=True)


def _read_start(start: steps_pb2.SlotStart) -> SlotStart:
    return SlotStart(
        slot=start.slot,
        sequence=start.sequence,
        sampling=_read_sampling(start.sampling),
        num_prompt_tokens=start.num_prompt_tokens,
        token_ids=tuple(start.token_ids),
    )


def _read_sampling(sampling: steps_pb2.Sampling) -> Sampling:
    return Sampling(
        **{name: getattr(sampling, name) for name in _SCALARS},
        **{
            name: getattr(sampling, name) if sampling.HasField(name) else None  # type: ignore[arg-type]
            for name in _OPTIONAL_SCALARS
        },
        stop_token_ids=frozenset(sampling.stop_token_ids),
        logit_bias=tuple(zip(sampling.biased_ids, sampling.biases, strict=True)),
        bad_words=tuple([tuple(word.ids) for word in sampling.bad_words]),
    )
