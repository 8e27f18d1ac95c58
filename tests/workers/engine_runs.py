"""Requests for a tiny engine, and what comes out of it."""

from collections.abc import Iterator

from shardline_workers.engine import Engine, EngineRequest, Sampling, SequenceStart, SequenceStep
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.tiny_checkpoint import VOCAB_SIZE

GREEDY = Sampling(temperature=0.0, max_tokens=24)
DRAWN = Sampling(temperature=1.3, top_k=40, top_p=0.95, min_p=0.001, seed=2**64 - 5, max_tokens=24)
ADJUSTED = Sampling(
    temperature=0.9,
    seed=11,
    max_tokens=24,
    min_tokens=9,
    stop_token_ids=frozenset({5, 17}),
    logit_bias=((3, 2.5), (40, -100.0)),
    repetition_penalty=1.2,
    frequency_penalty=0.3,
    presence_penalty=-0.2,
    bad_words=((8,), (20, 21)),
)
PROMPT = tuple((7 * number + 3) % VOCAB_SIZE for number in range(37))
NUM_OTHERS = 5


def request(
    sampling: Sampling,
    *,
    request_id: str = "r",
    prompt: tuple[int, ...] = PROMPT,
    generated: tuple[int, ...] = (),
    num_sequences: int = 1,
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_ids=prompt,
        sampling=sampling,
        sequences=(SequenceStart(generated_ids=generated),) * num_sequences,
    )


def others(sampling: Sampling) -> list[EngineRequest]:
    return [
        request(sampling, request_id=f"other {number}", prompt=tuple(range(number, number + 9 * (number + 1))))
        for number in range(NUM_OTHERS)
    ]


def run(engine: ShardedEngine, *requests: EngineRequest) -> dict[tuple[str, int], tuple[int, ...]]:
    """Runs to the end; checks the books after every step, and that nothing is held at the end."""
    for one in requests:
        engine.add(one)
    outputs: dict[tuple[str, int], tuple[int, ...]] = {}
    for step in steps(engine):
        key = step.request_id, step.sequence
        outputs[key] = outputs.get(key, ()) + step.token_ids
    assert engine.capacity().free_tokens == engine.description.kv_cache_tokens
    return outputs


def steps(engine: Engine) -> Iterator[SequenceStep]:
    for _ in range(10_000):
        if not engine.has_work():
            return
        yield from engine.step().sequences
        engine.check_integrity()
    raise AssertionError("the engine does not come to an end")
