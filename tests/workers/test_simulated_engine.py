"""The simulated engine keeps the engine's contract and honest books."""

import dataclasses

import pytest

from shardline_workers.engine import (
    Capacity,
    Engine,
    EngineRequest,
    FinishReason,
    RequestTooLargeError,
    Sampling,
    SequenceStart,
)
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode, check_chain


class RecordedSleep:
    """Notes how long steps would have taken."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def _engine(config: SimulatedEngineConfig | None = None, sleep: RecordedSleep | None = None) -> SimulatedEngine:
    return SimulatedEngine(config or SimulatedEngineConfig(), sleep=sleep or RecordedSleep())


def _request(
    request_id: str = "a", *, prompt: str = "hello", num_sequences: int = 1, generation: str = "", **sampling: int
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_ids=tuple(prompt.encode()),
        sampling=dataclasses.replace(Sampling(max_tokens=8), **sampling),  # type: ignore[arg-type]
        sequences=(SequenceStart(),) * num_sequences,
        generation=generation,
    )


def _run(engine: Engine) -> dict[tuple[str, int], tuple[list[int], FinishReason | None]]:
    """Steps until nothing is left."""
    outputs: dict[tuple[str, int], tuple[list[int], FinishReason | None]] = {}
    while engine.has_work():
        for step in engine.step().sequences:
            ids, _ = outputs.get((step.request_id, step.sequence), ([], None))
            outputs[step.request_id, step.sequence] = ([*ids, *step.token_ids], step.finish)
        engine.check_integrity()
    return outputs


def test_a_request_ends_by_length_with_printable_text() -> None:
    engine = _engine()
    engine.add(_request())

    ids, finish = _run(engine)["a", 0]

    assert finish is FinishReason.LENGTH
    assert len(ids) == 8
    assert bytes(ids).decode().isprintable()


def test_same_tokens_depend_on_prompt_seed_and_sequence_but_not_on_the_batch() -> None:
    alone, crowded = _engine(), _engine()
    alone.add(_request(num_sequences=2))
    for name, request in {"b": _request("b", seed=5), "c": _request("c", prompt="other")}.items():
        assert name == request.request_id
        crowded.add(request)
    crowded.add(_request(num_sequences=2))

    expected, outputs = _run(alone), _run(crowded)

    assert outputs["a", 0] == expected["a", 0]
    assert outputs["a", 1] == expected["a", 1]
    assert len({tuple(ids) for ids, _ in outputs.values()}) == 4


def test_generation_goes_on_after_the_tokens_of_the_log() -> None:
    whole, rest = _engine(), _engine()
    whole.add(_request())
    ids, _ = _run(whole)["a", 0]

    rest.add(dataclasses.replace(_request(), sequences=(SequenceStart(generated_ids=tuple(ids[:3])),)))

    assert _run(rest)["a", 0] == (ids[3:], FinishReason.LENGTH)


def test_a_finished_sequence_is_left_alone() -> None:
    engine = _engine()
    engine.add(dataclasses.replace(_request(), sequences=(SequenceStart(finished=True), SequenceStart())))

    outputs = _run(engine)

    assert list(outputs) == [("a", 1)]


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        (Sampling(max_tokens=3), FinishReason.LENGTH),
        (Sampling(max_tokens=8, stop_token_ids=frozenset({67})), FinishReason.STOP),
    ],
)
def test_a_sequence_whose_log_is_at_its_end_is_told_to_be_finished_without_a_token(
    sampling: Sampling, reason: FinishReason
) -> None:
    engine = _engine()
    starts = (SequenceStart(generated_ids=(65, 66, 67)),) * 2
    engine.add(dataclasses.replace(_request(), sampling=sampling, sequences=starts))

    engine.stop_sequence("a", 1)

    assert engine.capacity().free_slots == SimulatedEngineConfig().max_num_seqs
    assert _run(engine) == {("a", 0): ([], reason)}


def test_a_stop_id_ends_a_sequence() -> None:
    probe = _engine()
    probe.add(_request())
    ids, _ = _run(probe)["a", 0]
    engine = _engine()

    engine.add(dataclasses.replace(_request(), sampling=Sampling(max_tokens=8, stop_token_ids=frozenset({ids[4]}))))

    assert _run(engine)["a", 0] == (ids[: ids.index(ids[4]) + 1], FinishReason.STOP)


def test_audit_tokens_differ_between_generations_and_chain_over_a_move() -> None:
    config = SimulatedEngineConfig(tokens=TokenMode.PER_INCARNATION)
    first, second = _engine(config), _engine(config)
    first.add(_request(generation="one"))
    begun, _ = _run(first)["a", 0]

    second.add(
        dataclasses.replace(_request(generation="two"), sequences=(SequenceStart(generated_ids=tuple(begun[:4])),))
    )
    rest, _ = _run(second)["a", 0]

    assert all(x != y for x, y in zip(begun[4:], rest, strict=True))
    assert check_chain(tuple(b"hello"), [*begun[:4], *rest]) is None
    assert all(0x20 <= i & 0xFF < 0x7F for i in begun)


@pytest.mark.parametrize(
    ("mixed", "offset"),
    [
        (lambda one, two: [*one[:4], *two[4:]], 4),  # another generation's tail
        (lambda one, two: [*one[:4], *one[5:]], 4),  # a gap
        (lambda one, two: [*one[:4], *one[3:]], 4),  # a repeat
        (lambda one, two: [65, *one[1:]], 0),  # no audit id
    ],
)
def test_the_auditor_finds_mixed_text(mixed: object, offset: int) -> None:
    outputs = []
    for generation in ("one", "two"):
        engine = _engine(SimulatedEngineConfig(tokens=TokenMode.PER_INCARNATION))
        engine.add(_request(generation=generation))
        outputs.append(_run(engine)["a", 0][0])

    assert callable(mixed)
    assert check_chain(tuple(b"hello"), mixed(*outputs)) == offset


def test_the_auditor_tells_sequences_and_prompts_apart() -> None:
    engine = _engine(SimulatedEngineConfig(tokens=TokenMode.PER_INCARNATION))
    engine.add(_request(num_sequences=2))
    ids, _ = _run(engine)["a", 1]

    assert check_chain(tuple(b"hello"), ids, sequence=1) is None
    assert check_chain(tuple(b"hello"), ids, sequence=0) == 0
    assert check_chain(tuple(b"jello"), ids, sequence=1) == 0


def test_replay_plays_the_text_and_ends_it_where_the_request_stops_at_an_end_token() -> None:
    config = SimulatedEngineConfig(tokens=TokenMode.REPLAY, replay_text="né")
    endless, ending = _engine(config), _engine(config)
    endless.add(_request())
    ending.add(dataclasses.replace(_request(), sampling=Sampling(max_tokens=8, stop_token_ids=frozenset({257}))))

    assert bytes(_run(endless)["a", 0][0]) == "nénéné".encode()[:8]
    assert _run(ending)["a", 0] == ([*"né".encode(), 257], FinishReason.STOP)


def test_a_prompt_is_prefilled_in_chunks_beside_running_sequences() -> None:
    engine = _engine(SimulatedEngineConfig(max_num_batched_tokens=32))
    engine.add(_request("short", max_tokens=20))
    engine.step()
    engine.add(_request("long", prompt="x" * 70))

    steps = [engine.step() for _ in range(3)]

    assert [(s.num_prefill_tokens, s.num_decode_tokens) for s in steps] == [(31, 1), (31, 1), (8, 1)]
    assert [[s.request_id for s in step.sequences] for step in steps] == [["short"], ["short"], ["short", "long"]]


def test_a_step_takes_what_the_formula_says_and_what_was_expected() -> None:
    times, sleep = SimulatedStepTimes(step_s=1.0, sequence_s=0.1, prefill_token_s=0.01), RecordedSleep()
    engine = _engine(SimulatedEngineConfig(times=times), sleep)
    engine.add(_request("a"))
    engine.add(_request("b"))

    expected = engine.expected_step_s()
    engine.step()
    engine.step()

    assert sleep.slept == pytest.approx([1.0 + 2 * 0.1 + 10 * 0.01, 1.2])
    assert expected == sleep.slept[0]


def test_a_step_without_work_is_a_probe() -> None:
    sleep = RecordedSleep()

    assert _engine(sleep=sleep).step().sequences == ()
    assert len(sleep.slept) == 1


def test_capacity_counts_prompt_and_longest_output_of_each_sequence_and_comes_back() -> None:
    engine = _engine(SimulatedEngineConfig(max_num_seqs=4, max_model_len=100, kv_cache_tokens=200))
    engine.add(_request(num_sequences=2))

    assert engine.capacity() == Capacity(free_slots=2, free_tokens=200 - 2 * 13)
    engine.stop_sequence("a", 0)
    assert engine.capacity() == Capacity(free_slots=3, free_tokens=200 - 13)
    engine.cancel("a")
    assert engine.capacity() == Capacity(free_slots=4, free_tokens=200)
    assert not engine.has_work()


def test_what_does_not_fit_yet_waits_and_is_not_lost() -> None:
    engine = _engine(SimulatedEngineConfig(max_num_seqs=2, kv_cache_tokens=20, max_num_batched_tokens=8))
    for name in "abc":
        engine.add(_request(name))

    assert engine.capacity() == Capacity(free_slots=0, free_tokens=0)
    assert {name: len(ids) for (name, _), (ids, _) in _run(engine).items()} == {"a": 8, "b": 8, "c": 8}


def test_what_can_never_fit_is_refused_with_the_bound() -> None:
    engine = _engine(SimulatedEngineConfig(max_model_len=12))

    with pytest.raises(RequestTooLargeError, match="up to 13 tokens, but this engine holds 12"):
        engine.add(_request())


def test_logprobs_come_one_for_each_token_with_the_chosen_first() -> None:
    engine = _engine()
    engine.add(_request(num_logprobs=2))

    (step,) = engine.step().sequences

    (logprobs,) = step.logprobs
    assert len(logprobs.top) == 2
    assert logprobs.top_ids[0] == step.token_ids[0]
    assert logprobs.chosen == logprobs.top[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs is 0"),
        ({"kv_cache_tokens": 0}, "kv_cache_tokens is 0"),
        ({"max_num_seqs": 9, "max_num_batched_tokens": 8}, "max_num_batched_tokens is 8"),
        ({"tokens": TokenMode.REPLAY}, "needs a text"),
    ],
)
def test_a_wrong_configuration_is_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulatedEngineConfig(**settings)  # type: ignore[arg-type]
