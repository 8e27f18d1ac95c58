from dataclasses import replace

import pytest

from shardline_workers.engine import EngineRequest, FinishReason, Sampling, SequenceStart, SequenceStep, TokenLogprobs
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan

BLOCK = 4


def scheduler(
    *, num_blocks: int = 64, max_num_seqs: int = 4, budget: int = 64, enable_prefix_caching: bool = True
) -> Scheduler:
    return Scheduler(
        SchedulerLimits(
            max_model_len=128,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            num_blocks=num_blocks,
            block_size=BLOCK,
            enable_prefix_caching=enable_prefix_caching,
        )
    )


def request(
    request_id: str,
    prompt: int | tuple[int, ...],
    *,
    max_tokens: int = 8,
    stop: frozenset[int] = frozenset(),
    sequences: tuple[SequenceStart, ...] = (SequenceStart(),),
) -> EngineRequest:
    prompt_ids = tuple(range(100, 100 + prompt)) if isinstance(prompt, int) else prompt
    return EngineRequest(
        request_id=request_id,
        prompt_ids=prompt_ids,
        sampling=Sampling(max_tokens=max_tokens, stop_token_ids=stop),
        sequences=sequences,
    )


def run_step(engine: Scheduler, *, token: int = 7) -> tuple[StepPlan, tuple[SequenceStep, ...]]:
    plan = engine.schedule()
    answers = [SampledToken(token_id=token) for chunk in plan.chunks if chunk.samples]
    steps = engine.complete(plan, answers)
    engine.check_integrity()
    return plan, steps


def finish_all(engine: Scheduler) -> dict[SequenceKey, list[int]]:
    outputs: dict[SequenceKey, list[int]] = {}
    for _ in range(1000):
        if not engine.has_work():
            return outputs
        for step in run_step(engine)[1]:
            outputs.setdefault(SequenceKey(step.request_id, step.sequence), []).extend(step.token_ids)
    raise AssertionError("the scheduler does not come to an end")


def spans(plan: StepPlan) -> dict[tuple[str, int], tuple[int, int]]:
    return {
        (chunk.key.request_id, chunk.key.sequence): (chunk.start, chunk.start + len(chunk.token_ids))
        for chunk in plan.chunks
    }


def test_a_prompt_is_computed_in_chunks_under_the_budget_and_samples_at_its_end() -> None:
    engine = scheduler(budget=8)
    engine.add(request("a", 17))

    plans = [run_step(engine)[0] for _ in range(4)]

    assert [spans(plan)["a", 0] for plan in plans] == [(0, 8), (8, 16), (16, 17), (17, 18)]
    assert [plan.chunks[0].samples for plan in plans] == [False, False, True, True]
    assert [(plan.num_prefill_tokens, plan.num_decode_tokens) for plan in plans] == [(8, 0), (8, 0), (1, 0), (0, 1)]


def test_running_decodes_come_before_prefills() -> None:
    engine = scheduler(budget=8)
    engine.add(request("a", 3))
    run_step(engine)
    engine.add(request("b", 20))
    run_step(engine)

    plan, _ = run_step(engine)

    assert [(chunk.key.request_id, len(chunk.token_ids)) for chunk in plan.chunks] == [("a", 1), ("b", 7)]


def test_a_chunk_names_only_blocks_that_its_slot_does_not_know_yet() -> None:
    engine = scheduler(budget=8)
    engine.add(request("a", 7))

    chunks = [run_step(engine)[0].chunks[0] for _ in range(3)]

    assert [(chunk.first_new_block, len(chunk.new_block_ids)) for chunk in chunks] == [(0, 2), (2, 0), (2, 1)]


def test_a_stop_token_ends_a_sequence_and_frees_its_blocks() -> None:
    engine = scheduler()
    engine.add(request("a", 6, stop=frozenset({7})))

    _, steps = run_step(engine, token=7)

    assert steps == (SequenceStep(request_id="a", sequence=0, token_ids=(7,), finish=FinishReason.STOP),)
    assert not engine.has_work()
    assert engine.capacity().free_tokens == 64 * BLOCK


def test_a_sequence_ends_at_max_tokens() -> None:
    engine = scheduler()
    engine.add(request("a", 6, max_tokens=2))

    reasons = [run_step(engine)[1][0].finish for _ in range(2)]

    assert reasons == [None, FinishReason.LENGTH]
    assert not engine.has_work()


def test_logprobs_travel_with_their_token() -> None:
    engine = scheduler()
    engine.add(request("a", 2))
    told = TokenLogprobs(-0.5, (7,), (-0.5,))

    (step,) = engine.complete(engine.schedule(), [SampledToken(token_id=7, logprobs=told)])

    assert step.logprobs == (told,)


def test_a_resumed_request_computes_prompt_and_output_and_goes_on_after_them() -> None:
    engine = scheduler()
    engine.add(request("a", 6, max_tokens=4, sequences=(SequenceStart(generated_ids=(1, 2, 3)),)))

    plan, steps = run_step(engine)

    assert plan.chunks[0].token_ids[-3:] == (1, 2, 3)
    assert steps[0].token_ids == (7,)
    assert steps[0].finish is FinishReason.LENGTH


def test_a_sequence_whose_log_is_at_its_end_is_told_to_be_finished_without_a_token() -> None:
    engine = scheduler()
    engine.add(request("a", 6, max_tokens=3, sequences=(SequenceStart(generated_ids=(1, 2, 3)),)))

    plan, steps = run_step(engine)

    assert plan.num_tokens == 0
    assert steps == (SequenceStep(request_id="a", sequence=0, token_ids=(), finish=FinishReason.LENGTH),)
    assert not engine.has_work()


def test_finished_sequences_of_a_resumed_request_are_left_alone() -> None:
    engine = scheduler()
    engine.add(request("a", 6, sequences=(SequenceStart(generated_ids=(1,), finished=True), SequenceStart())))

    outputs = finish_all(engine)

    assert list(outputs) == [SequenceKey("a", 1)]


def test_sequences_of_a_request_share_the_full_blocks_of_their_prompt() -> None:
    engine = scheduler()
    engine.add(request("a", 10, sequences=(SequenceStart(),) * 3))

    first, _ = run_step(engine)
    second, _ = run_step(engine)

    assert spans(first) == {("a", 0): (0, 10)}
    assert spans(second) == {("a", 0): (10, 11), ("a", 1): (8, 10), ("a", 2): (8, 10)}
    by_sequence = {chunk.key.sequence: chunk for chunk in [first.chunks[0], *second.chunks[1:]]}
    assert len({chunk.new_block_ids[:2] for chunk in by_sequence.values()}) == 1
    assert len({chunk.new_block_ids[2] for chunk in by_sequence.values()}) == 3


def test_sequences_share_their_prompt_with_prefix_caching_off_too() -> None:
    engine = scheduler(enable_prefix_caching=False)
    engine.add(request("a", 10, sequences=(SequenceStart(),) * 2))
    engine.add(request("b", 10))
    run_step(engine)

    plan, _ = run_step(engine)

    assert spans(plan)["a", 1] == (8, 10)


def test_a_prefix_that_was_computed_is_not_computed_again() -> None:
    engine = scheduler()
    engine.add(request("a", 10, max_tokens=1))
    run_step(engine)

    engine.add(request("b", 10, max_tokens=1))
    plan, _ = run_step(engine)

    assert spans(plan) == {("b", 0): (8, 10)}


def test_a_plan_tells_what_the_prefix_index_was_asked_for_and_what_it_had() -> None:
    engine = scheduler()
    engine.add(request("first", 10))
    first, _ = run_step(engine)
    held = engine.load()

    engine.add(request("second", 10))
    second, _ = run_step(engine)

    assert (first.num_prefix_queries, first.num_prefix_hits) == (10, 0)
    assert (second.num_prefix_queries, second.num_prefix_hits) == (10, 2 * BLOCK)
    assert (held.num_running, held.num_waiting, held.kv_cache_usage) == (1, 0, 3 / 64)


def test_at_least_one_token_is_computed_for_a_prompt_that_is_cached_whole() -> None:
    engine = scheduler()
    for name in ("a", "b"):
        engine.add(request(name, 8, max_tokens=1))
        plan, _ = run_step(engine)

    assert spans(plan) == {("b", 0): (4, 8)}


def test_prefixes_are_not_shared_between_requests_where_caching_is_off() -> None:
    engine = scheduler(enable_prefix_caching=False)
    for name in ("a", "b"):
        engine.add(request(name, 10, max_tokens=1))
        plan, _ = run_step(engine)

    assert spans(plan) == {("b", 0): (0, 10)}


def test_prefixes_are_shared_within_a_tenant_alone() -> None:
    engine = scheduler()
    spans_seen: dict[tuple[str, int], tuple[int, int]] = {}
    for name, salt in (("first", "shop"), ("stranger", "bank"), ("colleague", "shop")):
        engine.add(replace(request(name, 10, max_tokens=1), cache_salt=salt))
        spans_seen |= spans(run_step(engine)[0])

    assert spans_seen == {("first", 0): (0, 10), ("stranger", 0): (0, 10), ("colleague", 0): (8, 10)}


def test_the_least_recently_used_prefix_is_evicted_first() -> None:
    engine = scheduler(num_blocks=5)
    old, new, big = tuple(range(5)), tuple(range(50, 55)), tuple(range(90, 98))
    for name, prompt in (("old", old), ("new", new), ("big", big)):
        engine.add(request(name, prompt, max_tokens=1))
        run_step(engine)

    starts = {}
    for name, prompt in (("new again", new), ("old again", old)):
        engine.add(request(name, prompt, max_tokens=1))
        plan, _ = run_step(engine)
        starts[name] = plan.chunks[0].start

    assert starts == {"new again": BLOCK, "old again": 0}


def test_the_latest_arrival_is_preempted_when_blocks_run_out_and_still_finishes() -> None:
    engine = scheduler(num_blocks=5)
    engine.add(request("a", (1, 2, 3, 4, 5), max_tokens=10))
    engine.add(request("b", (11, 12, 13, 14, 15), max_tokens=10))

    preempted: list[SequenceKey] = []
    outputs: dict[str, int] = {"a": 0, "b": 0}
    while engine.has_work():
        plan, steps = run_step(engine)
        preempted.extend(plan.preempted)
        for step in steps:
            outputs[step.request_id] += len(step.token_ids)

    assert preempted == [SequenceKey("b", 0)]
    assert outputs == {"a": 10, "b": 10}


def test_a_cancelled_request_frees_all_that_it_had_at_once() -> None:
    engine = scheduler()
    engine.add(request("a", 10, sequences=(SequenceStart(),) * 2))
    run_step(engine)
    run_step(engine)

    engine.cancel("a")
    engine.cancel("unknown")
    engine.check_integrity()

    assert not engine.has_work()
    assert (engine.capacity().free_slots, engine.capacity().free_tokens) == (4, 64 * BLOCK)


def test_a_token_computed_after_a_stop_is_dropped() -> None:
    engine = scheduler()
    engine.add(request("a", 3))
    engine.add(request("b", 3))
    plan = engine.schedule()

    engine.stop_sequence("a", 0)
    engine.stop_sequence("a", 5)
    steps = engine.complete(plan, [SampledToken(token_id=7), SampledToken(token_id=8)])

    engine.check_integrity()
    assert [(step.request_id, step.token_ids) for step in steps] == [("b", (8,))]


def test_an_answer_for_a_cancelled_request_does_not_reach_its_successor_of_the_same_name() -> None:
    engine = scheduler()
    engine.add(request("a", 3))
    plan = engine.schedule()
    engine.cancel("a")
    engine.add(request("a", 9))

    steps = engine.complete(plan, [SampledToken(token_id=7)])

    engine.check_integrity()
    assert steps == ()
    assert spans(engine.schedule()) == {("a", 0): (0, 9)}


def test_an_error_ends_its_own_request_only_and_its_blocks_are_not_found_again() -> None:
    engine = scheduler()
    engine.add(request("bad", 9, sequences=(SequenceStart(),) * 2))
    engine.add(request("good", (1, 2, 3)))
    run_step(engine)
    plan = engine.schedule()

    answers = [
        SampledToken(token_id=0, error="NaN") if chunk.key.request_id == "bad" else SampledToken(token_id=7)
        for chunk in plan.chunks
    ]
    steps = engine.complete(plan, answers)

    engine.check_integrity()
    assert [(step.request_id, step.error) for step in steps] == [("good", None), ("bad", "NaN")]
    engine.add(request("again", 9))
    assert spans(engine.schedule())["again", 0] == (0, 9)


def test_capacity_counts_those_that_wait() -> None:
    engine = scheduler(num_blocks=8, max_num_seqs=2)

    engine.add(request("a", 7))
    before = engine.capacity()
    run_step(engine)
    after = engine.capacity()

    assert (before.free_slots, before.free_tokens) == (1, 6 * BLOCK)
    assert (after.free_slots, after.free_tokens) == (1, 6 * BLOCK)


def test_more_sequences_than_slots_take_turns() -> None:
    engine = scheduler(max_num_seqs=2)
    engine.add(request("a", 5, sequences=(SequenceStart(),) * 5))

    outputs = finish_all(engine)

    assert {key.sequence: len(tokens) for key, tokens in outputs.items()} == dict.fromkeys(range(5), 8)


def test_a_request_that_is_known_already_is_refused() -> None:
    engine = scheduler()
    engine.add(request("a", 3))

    with pytest.raises(ValueError, match="'a' is here already"):
        engine.add(request("a", 3))


def test_the_next_step_is_foretold_within_the_budget() -> None:
    engine = scheduler(budget=16)

    engine.add(request("a", 10))
    small = engine.num_next_tokens()
    engine.add(request("b", 10))

    assert (small, engine.num_next_tokens()) == (10, 16)
