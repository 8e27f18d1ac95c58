"""Part of `benchmarks.parallel`: what the way of a step from its leader to the ranks costs.

- `encoding`: size of a frame, and microseconds to make and to read it, for steps of several kinds; the answer's, too.
- `checksum`: microseconds of one checksum of the state that leader and ranks mirror, with every table half full.
- `transports`: frames between processes, see benchmarks/step_transports.py.
"""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.step_examples import BLOCK_SIZE, a_chunk, quantiles_us, sampled_tokens, step_plans
from benchmarks.step_transports import Schedule, exchanged
from shardline_workers.gang.answer_encoding import decode_answer, encode_answer
from shardline_workers.gang.step_encoding import decode_frame, encode_step
from shardline_workers.gang.step_writer import CHECK_EVERY_STEPS
from shardline_workers.ranks.block_tables import BlockTables
from shardline_workers.ranks.slot_parameters import SlotParameters
from shardline_workers.scheduling.step_plan import SlotPlan

_STATES = ((32, 8192), (256, 32768))  # slots, tokens of the longest sequence


def step_channel(*, is_short: bool) -> dict[str, object]:
    """The part's configuration and figures; the short form takes a few seconds and says nothing."""
    turns, steps = (1, 10) if is_short else (10, 100)
    repetitions = 20 if is_short else 2000
    num_ranks = (1,) if is_short else (1, 3)
    return {
        "configuration": {"turns": turns, "steps": steps, "repetitions": repetitions},
        "encoding": {name: _encoding(plan, repetitions) for name, plan in step_plans().items()},
        "answer": _answer(repetitions),
        "checksum": {
            "every_steps": CHECK_EVERY_STEPS,
            "sizes": [_checksum(*size, repetitions // 10) for size in _STATES],
        },
        "transports": [
            exchanged(Schedule(num_ranks=ranks, turns=turns, steps=steps), is_loaded=loaded)
            for ranks in num_ranks
            for loaded in (False, True)
        ],
    }


def _encoding(plan: SlotPlan, repetitions: int) -> dict[str, object]:
    frame = encode_step((plan,), number=100_000, num_threads=8)
    return {
        "frame_bytes": len(frame),
        "encode_us": _timed(lambda: encode_step((plan,), number=100_000, num_threads=8), repetitions),
        "decode_us": _timed(lambda: decode_frame(frame, group=0), repetitions),
    }


def _answer(repetitions: int) -> dict[str, object]:
    answer = sampled_tokens(32)
    data = encode_answer(answer)
    return {
        "num_tokens": len(answer.sampled),
        "answer_bytes": len(data),
        "encode_us": _timed(lambda: encode_answer(answer), repetitions),
        "decode_us": _timed(lambda: decode_answer(data), repetitions),
    }


def _checksum(num_slots: int, max_model_len: int, repetitions: int) -> dict[str, object]:
    max_blocks = max_model_len // BLOCK_SIZE
    tables, slots = BlockTables(np.zeros((num_slots, max_blocks), np.int64)), SlotParameters(num_slots)
    tables.extend([a_chunk(slot, start=0, num_tokens=max_model_len // 2) for slot in range(num_slots)])
    return {
        "num_slots": num_slots,
        "max_model_len": max_model_len,
        "checksum_us": _timed(lambda: (tables.checksum(num_slots), slots.checksum(num_slots)), repetitions),
    }


def _timed(call: Callable[[], object], repetitions: int) -> dict[str, float]:
    samples_us = []
    for _ in range(repetitions):
        began = time.perf_counter()
        call()
        samples_us.append((time.perf_counter() - began) * 1e6)
    return quantiles_us(samples_us)
