from random import Random

import pytest

from shardline_workers.engine import Capacity, EngineRequest, FinishReason, Sampling, SequenceStart, SequenceStep
from shardline_workers.scheduling.scheduler_groups import SchedulerGroups
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan

BLOCK = 4
NUM_BLOCKS = 16


def groups(*, num_groups: int = 2, max_num_seqs: int = 4, max_in_flight: int = 1) -> SchedulerGroups:
    limits = SchedulerLimits(
        max_model_len=60,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=64,
        num_blocks=NUM_BLOCKS,
        block_size=BLOCK,
        max_in_flight=max_in_flight,
    )
    return SchedulerGroups(limits, num_groups=num_groups)


def request(name: str, prompt: tuple[int, ...], *, max_tokens: int = 4, num_sequences: int = 1) -> EngineRequest:
    return EngineRequest(
        request_id=name,
        prompt_ids=prompt,
        sampling=Sampling(max_tokens=max_tokens, stop_token_ids=frozenset({0})),
        sequences=(SequenceStart(),) * num_sequences,
    )


def prompt(length: int, *, first: int = 1) -> tuple[int, ...]:
    return tuple(range(first, first + length))


def names(plans: tuple[StepPlan, ...]) -> list[list[str]]:
    return [[chunk.key.request_id for chunk in plan.chunks] for plan in plans]


def complete(engine: SchedulerGroups, plans: tuple[StepPlan, ...], *, token: int = 7) -> tuple[SequenceStep, ...]:
    rows = [[SampledToken(token_id=token) for chunk in plan.chunks if chunk.samples] for plan in plans]
    steps = engine.complete(plans, rows)
    engine.check_integrity()
    return steps


def test_requests_go_where_most_room_is() -> None:
    engine = groups()
    engine.add(request("large", prompt(30)))
    engine.add(request("small", prompt(9, first=50)))
    engine.add(request("smaller", prompt(5, first=70)))

    plans = engine.schedule()

    assert names(plans) == [["large"], ["small", "smaller"]]
    assert [step.request_id for step in complete(engine, plans)] == ["large", "small", "smaller"]


def test_all_sequences_of_a_request_are_in_one_group() -> None:
    engine = groups()
    engine.add(request("many", prompt(6), num_sequences=4))
    complete(engine, engine.schedule())

    plans = engine.schedule()

    assert [len(plan.chunks) for plan in plans] == [4, 0]


def test_a_request_goes_where_its_prefix_is_cached_unless_that_costs_more_room_than_it_saves() -> None:
    engine = groups()
    engine.add(request("first", prompt(20), max_tokens=1))
    engine.add(request("filler", prompt(9, first=60)))
    complete(engine, engine.schedule())

    engine.add(request("follower", prompt(22)))
    follower = engine.schedule()
    complete(engine, follower)
    engine.add(request("other tenant", prompt(5, first=90)))
    engine.add(request("long filler", prompt(5, first=95)))
    crowded = engine.schedule()

    assert names(follower) == [["follower"], ["filler"]]
    assert follower[0].chunks[0].start == 20
    assert names(crowded) == [["follower"], ["filler", "other tenant", "long filler"]]


def test_capacity_promises_what_one_group_can_hold() -> None:
    engine = groups()
    whole = engine.capacity()
    engine.add(request("large", prompt(40)))

    with_one = engine.capacity()
    engine.add(request("second", prompt(20, first=60)))

    assert whole == with_one == Capacity(free_slots=4, free_tokens=NUM_BLOCKS * BLOCK)
    assert engine.capacity() == Capacity(free_slots=3, free_tokens=(NUM_BLOCKS - 6) * BLOCK)


def test_a_group_without_slots_promises_nothing_while_another_has_some() -> None:
    engine = groups(max_num_seqs=2)
    engine.add(request("long", prompt(40)))
    for number in range(2):
        engine.add(request(f"short {number}", prompt(2, first=60 + 9 * number)))

    capacity = engine.capacity()

    assert capacity == Capacity(free_slots=1, free_tokens=(NUM_BLOCKS - 11) * BLOCK)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_fits_into_the_promise_together_is_admitted_at_once(seed: int) -> None:
    random = Random(seed)
    engine = groups(num_groups=3)
    for number in range(random.randrange(6)):
        engine.add(request(f"old {number}", prompt(random.randrange(2, 24), first=100 * number)))
    complete(engine, engine.schedule())
    promised = engine.capacity()
    slots, tokens, added = promised.free_slots, promised.free_tokens, 0

    while slots > 0:
        length = random.randrange(2, 20)
        taken = -(-(length + 1) // BLOCK) * BLOCK
        if taken > tokens:
            break
        engine.add(request(f"new {added}", prompt(length, first=1000 + 100 * added)))
        slots, tokens, added = slots - 1, tokens - taken, added + 1
    started = {name for group in names(engine.schedule()) for name in group if name.startswith("new")}

    assert added > 0
    assert len(started) == added


def test_a_group_with_nothing_to_do_has_a_plan_without_chunks() -> None:
    engine = groups()
    engine.add(request("only", prompt(5)))

    first = engine.schedule()
    complete(engine, first)

    assert [len(plan.chunks) for plan in first] == [1, 0]
    assert engine.has_work()
    engine.cancel("only")
    assert not engine.has_work()


def test_groups_have_steps_under_way_together_and_each_its_own_share() -> None:
    engine = groups(max_in_flight=2)
    for number in range(3):
        engine.add(request(f"r{number}", prompt(5, first=20 * number)))

    first, second, third = engine.schedule(), engine.schedule(), engine.schedule()
    told = complete(engine, first)

    assert (names(first), names(second), names(third)) == ([["r0"], ["r1"]], [["r2"], []], [[], []])
    assert [step.request_id for step in told] == ["r0", "r1"]
    assert names(engine.schedule()) == [["r0"], ["r1"]]


def test_a_request_is_forgotten_at_its_end_and_its_name_may_come_again_in_any_group() -> None:
    engine = groups()
    engine.add(request("a", prompt(5)))
    (end,) = complete(engine, engine.schedule(), token=0)
    engine.add(request("big", prompt(40, first=30)))
    engine.add(request("a", prompt(5)))

    plans = engine.schedule()
    engine.stop_sequence("a", 0)
    engine.cancel("unknown")
    engine.stop_sequence("unknown", 3)

    assert end.finish is FinishReason.STOP
    assert names(plans) == [["big"], ["a"]]
    assert complete(engine, plans)[0].request_id == "big"


def test_a_request_that_is_known_already_is_refused_whichever_group_has_it() -> None:
    engine = groups()
    engine.add(request("a", prompt(30)))

    with pytest.raises(ValueError, match="'a' is here already"):
        engine.add(request("a", prompt(3)))


def test_a_request_whose_log_is_at_its_end_is_told_so() -> None:
    engine = groups()
    ended = SequenceStart(generated_ids=(1, 2, 3, 4))
    engine.add(EngineRequest(request_id="a", prompt_ids=(5,), sampling=Sampling(max_tokens=4), sequences=(ended,)))

    plans = engine.schedule()
    steps = complete(engine, plans)

    assert names(plans) == [[], []]
    assert [(step.request_id, step.finish) for step in steps] == [("a", FinishReason.LENGTH)]
    assert not engine.has_work()


def test_the_load_is_that_of_all_groups() -> None:
    engine = groups()
    engine.add(request("a", prompt(31)))
    engine.add(request("b", prompt(15, first=50)))
    complete(engine, engine.schedule())

    load = engine.load()

    assert (load.num_running, load.num_waiting) == (2, 0)
    assert load.kv_cache_usage == pytest.approx((8 + 4) / (2 * NUM_BLOCKS))
