"""Log-probabilities of the prompt's own tokens: those that the model gives when asked after each beginning alone."""

import dataclasses
import os

import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart, TokenLogprobs
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.scheduling.scheduler_limits import MAX_SCORED_TOKENS
from shardline_workers.sharded_engine import ShardedEngine
from tests.workers.engine_runs import steps
from tests.workers.quantised_gguf import write_quantised_gguf
from tests.workers.tiny_checkpoint import VOCAB_SIZE, write_tiny_checkpoint

PROMPT = tuple((11 * number * number + 5 * number + 2) % VOCAB_SIZE for number in range(75))
SCORED = Sampling(temperature=0.0, max_tokens=4, num_prompt_logprobs=3)
Scores = tuple[TokenLogprobs, ...]


@pytest.fixture(scope="module", params=["reference", "native"])
def config(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, native_library: NativeLibrary
) -> EngineConfig:
    folder = tmp_path_factory.mktemp("scored")
    files: ModelFiles = (
        write_quantised_gguf(folder / "m.gguf", "Q8_0") if request.param == "native" else write_tiny_checkpoint(folder)
    )
    return EngineConfig(
        files=files,
        kernels=request.param,
        dtype="auto" if request.param == "native" else "float64",
        max_model_len=256,
        max_num_seqs=4,
        max_num_batched_tokens=128,
        kv_cache_tokens=1024,
        block_size=32,
        replicas_on_host=64,
        max_logprobs=VOCAB_SIZE,
    )


def load(config: EngineConfig, **changes: object) -> ShardedEngine:
    return load_engine(dataclasses.replace(config, **changes), report=lambda _: None, environment=os.environ)  # type: ignore[arg-type]


def wanted(
    sampling: Sampling = SCORED,
    *,
    request_id: str = "r",
    prompt: tuple[int, ...] = PROMPT,
    outputs: tuple[tuple[int, ...], ...] = ((),),
) -> EngineRequest:
    starts = tuple(SequenceStart(generated_ids=output) for output in outputs)
    return EngineRequest(request_id=request_id, prompt_ids=prompt, sampling=sampling, sequences=starts)


def scores_of(engine: ShardedEngine, *requests: EngineRequest, request_id: str = "r") -> Scores:
    """What is told of the prompt, in the one step that tells it; it must come with a token of its request."""
    for request in requests:
        engine.add(request)
    told = [step for step in steps(engine) if step.request_id == request_id and step.prompt_logprobs is not None]
    (step,) = told
    assert step.token_ids
    return step.prompt_logprobs or ()


def next_token_logprobs(engine: ShardedEngine, beginning: tuple[int, ...]) -> dict[int, float]:
    """Of every token of the vocabulary, after a beginning of the prompt alone."""
    sampling = Sampling(temperature=0.0, max_tokens=1, num_logprobs=VOCAB_SIZE)
    engine.add(wanted(sampling, prompt=beginning))
    (step,) = list(steps(engine))
    return dict(zip(step.logprobs[0].top_ids, step.logprobs[0].top, strict=True))


@pytest.fixture(scope="module")
def alone(config: EngineConfig) -> Scores:
    return scores_of(load(config), wanted())


def test_each_is_what_the_model_says_after_the_tokens_before_it(config: EngineConfig, alone: Scores) -> None:
    engine = load(config, enable_prefix_caching=False)

    assert len(alone) == len(PROMPT) - 1
    for position in (1, 2, 31, 32, 33, 63, 64, 74):
        oracle = next_token_logprobs(engine, PROMPT[:position])
        told = alone[position - 1]
        assert told.chosen == pytest.approx(oracle[PROMPT[position]], abs=1e-9)
        likeliest = sorted(oracle, key=lambda token_id: -oracle[token_id])[:3]
        assert told.top_ids == tuple(likeliest)
        assert told.top == pytest.approx([oracle[token_id] for token_id in likeliest], abs=1e-9)


def same(one: Scores, other: Scores) -> bool:
    """But for the reference's last bits: it computes in float64, whose sums may be cut otherwise."""
    return [told.top_ids for told in one] == [told.top_ids for told in other] and all(
        told.chosen == pytest.approx(twin.chosen, abs=1e-9) for told, twin in zip(one, other, strict=True)
    )


def test_other_requests_and_small_chunks_change_nothing(config: EngineConfig, alone: Scores) -> None:
    others = [wanted(request_id=f"other {number}", prompt=PROMPT[number : 30 + number]) for number in range(3)]

    assert same(scores_of(load(config, max_num_batched_tokens=8), *others, wanted()), alone)


def test_a_cached_prefix_is_computed_again_where_its_logits_are_wanted(config: EngineConfig, alone: Scores) -> None:
    engine = load(config)
    scores_of(engine, wanted())

    assert same(scores_of(engine, wanted()), alone)


def test_they_are_told_once_for_all_sequences_of_a_request(config: EngineConfig, alone: Scores) -> None:
    assert same(scores_of(load(config), wanted(outputs=((), (), ()))), alone)


def test_a_request_that_goes_on_elsewhere_can_still_tell_them(config: EngineConfig, alone: Scores) -> None:
    assert same(scores_of(load(config), wanted(outputs=((5, 9), (5,)))), alone)


def test_a_prompt_preempted_in_the_middle_goes_on_being_scored_where_it_was(
    config: EngineConfig, alone: Scores
) -> None:
    """Its prefill takes so many steps that its neighbours grow by more blocks than were left for them."""
    engine = load(config, kv_cache_tokens=320, max_model_len=128, max_num_batched_tokens=4)
    for number in range(2):
        neighbour = Sampling(temperature=0.0, max_tokens=66)
        engine.add(wanted(neighbour, request_id=f"neighbour {number}", prompt=PROMPT[number : 62 + number]))
    engine.add(wanted())

    num_preempted_before = 0
    scores: Scores = ()
    while engine.has_work():
        result = engine.step()
        engine.check_integrity()
        num_preempted_before += result.num_preempted if not scores else 0
        for step in result.sequences:
            scores = step.prompt_logprobs or scores

    assert num_preempted_before > 0
    assert same(scores, alone)


def test_a_prompt_of_one_token_has_none_and_says_so(config: EngineConfig) -> None:
    assert scores_of(load(config), wanted(prompt=PROMPT[:1])) == ()


def test_outputs_are_the_same_with_scores_and_without(config: EngineConfig) -> None:
    engine = load(config)

    outputs = []
    for sampling in (SCORED, dataclasses.replace(SCORED, num_prompt_logprobs=None)):
        engine.add(wanted(sampling))
        outputs.append([step.token_ids for step in steps(engine)])

    assert outputs[0] == outputs[1]


def test_a_step_scores_no_more_tokens_than_it_has_rows_for(config: EngineConfig) -> None:
    engine = load(config)
    engine.add(wanted())
    engine.add(wanted(request_id="other"))

    first = engine.step()

    assert first.num_prefill_tokens == MAX_SCORED_TOKENS
    assert len({step.request_id for step in steps(engine)}) == 2


def test_more_than_the_engine_tells_is_refused(config: EngineConfig) -> None:
    engine = load(config, max_logprobs=5)

    with pytest.raises(ValueError, match="num_prompt_logprobs is 6; it must be between 0 and 5"):
        engine.add(wanted(dataclasses.replace(SCORED, num_prompt_logprobs=6)))
