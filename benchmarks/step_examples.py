"""Steps as they are in service, and their answers, to measure what they cost."""

import statistics
from collections.abc import Sequence

from shardline_workers.engine import Sampling
from shardline_workers.gang.step_frames import SampledAnswer
from shardline_workers.scheduling.step_plan import SampledToken, SlotChunk, SlotPlan, SlotStart

BLOCK_SIZE = 16


def step_plans() -> dict[str, SlotPlan]:
    """Steps of several kinds."""
    prefill = a_chunk(31, start=0, num_tokens=2016)
    start = SlotStart(slot=31, sequence=0, sampling=Sampling(temperature=0.7, top_p=0.9, seed=2**63))
    return {
        "1 decode": SlotPlan(chunks=(a_chunk(0),)),
        "32 decodes": SlotPlan(chunks=tuple(a_chunk(slot) for slot in range(32))),
        "256 decodes": SlotPlan(chunks=tuple(a_chunk(slot) for slot in range(256))),
        "31 decodes and a prefill of 2016 tokens": SlotPlan(
            starts=(start,), chunks=(*(a_chunk(slot) for slot in range(31)), prefill)
        ),
    }


def a_chunk(slot: int, *, start: int | None = None, num_tokens: int = 1) -> SlotChunk:
    """Of a decode; every 16th brings a block, as one in 16 steps of each sequence does."""
    start = 1000 + slot if start is None else start
    first, end = -(-start // BLOCK_SIZE), -(-(start + num_tokens) // BLOCK_SIZE)
    return SlotChunk(
        slot=slot,
        start=start,
        token_ids=tuple((997 * (slot + number)) % 49152 for number in range(num_tokens)),
        first_new_block=first,
        new_block_ids=tuple(range(5000 + first, 5000 + end)),
        samples=True,
    )


def sampled_tokens(num_tokens: int) -> SampledAnswer:
    """An answer."""
    tokens = [SampledToken(token_id=(997 * number) % 49152) for number in range(num_tokens)]
    return SampledAnswer(number=100_000, sampled=tokens, busy_s=0.01)


def quantiles_us(samples_us: Sequence[float]) -> dict[str, float]:
    """Median and 9th tenth of microseconds."""
    tenths = statistics.quantiles(samples_us, n=10)
    return {"p50": round(tenths[4], 1), "p90": round(tenths[8], 1)}
