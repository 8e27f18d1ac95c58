import pytest

from shardline_workers.engine import EngineRequest, Sampling, SequenceStart
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, StepPlan

BLOCK = 4


def scheduler(*, max_in_flight: int, num_blocks: int = 64, budget: int = 64, max_num_seqs: int = 8) -> Scheduler:
    return Scheduler(
        SchedulerLimits(
            max_model_len=128,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=budget,
            num_blocks=num_blocks,
            block_size=BLOCK,
            max_in_flight=max_in_flight,
        )
    )


def add(engine: Scheduler, name: str, *, prompt: int = 3, max_tokens: int = 20, num_sequences: int = 1) -> None:
    first = 1 + 50 * engine.load().num_waiting
    engine.add(
        EngineRequest(
            request_id=name,
            prompt_ids=tuple(range(first, first + prompt)),
            sampling=Sampling(max_tokens=max_tokens),
            sequences=(SequenceStart(),) * num_sequences,
        )
    )


def complete(engine: Scheduler, plan: StepPlan) -> list[str]:
    sampled = [SampledToken(token_id=7) for chunk in plan.chunks if chunk.samples]
    steps = engine.complete(plan, sampled)
    engine.check_integrity()
    return [step.request_id for step in steps]


def names(plan: StepPlan) -> list[str]:
    return [chunk.key.request_id for chunk in plan.chunks]


def test_a_sequence_is_in_one_step_at_a_time() -> None:
    engine = scheduler(max_in_flight=2)
    add(engine, "a")

    first, second = engine.schedule(), engine.schedule()
    complete(engine, first)
    third = engine.schedule()

    assert (names(first), names(second), names(third)) == (["a"], [], ["a"])
    assert third.chunks[0].start == 3


@pytest.mark.parametrize(
    ("num_stages", "num_sequences", "sizes"),
    [
        (2, 1, [1, 0]),
        (2, 2, [1, 1]),
        (2, 3, [2, 1]),
        (2, 8, [4, 4]),
        (3, 2, [1, 1, 0]),
        (3, 7, [3, 3, 1]),
        (4, 8, [2, 2, 2, 2]),
    ],
)
def test_all_stages_get_a_part_of_the_sequences(num_stages: int, num_sequences: int, sizes: list[int]) -> None:
    engine = scheduler(max_in_flight=num_stages)
    for number in range(num_sequences):
        add(engine, f"r{number}")

    plans = [engine.schedule() for _ in range(num_stages)]

    assert [len(plan.chunks) for plan in plans] == sizes
    complete(engine, plans[0])
    assert names(engine.schedule()) == names(plans[0])


def test_newcomers_enter_a_pipeline_that_is_full_of_decodes() -> None:
    engine = scheduler(max_in_flight=2)
    for name in "abcd":
        add(engine, name)
    first, second = engine.schedule(), engine.schedule()
    for name in "efgh":
        add(engine, name)

    complete(engine, first)
    third = engine.schedule()
    complete(engine, second)
    fourth = engine.schedule()

    assert (names(third), names(fourth)) == (["a", "b", "e", "f"], ["c", "d", "g", "h"])


def test_sequences_that_lost_their_partners_spread_over_all_steps_again() -> None:
    engine = scheduler(max_in_flight=2)
    for name in "abcd":
        add(engine, name)
    first, second = engine.schedule(), engine.schedule()
    engine.cancel("c")
    engine.cancel("d")

    told = [*complete(engine, first), *complete(engine, second)]
    plans = [engine.schedule(), engine.schedule()]

    assert told == ["a", "b"]
    assert [names(plan) for plan in plans] == [["a"], ["b"]]


def test_a_long_prompt_and_decodes_go_side_by_side() -> None:
    engine = scheduler(max_in_flight=2, budget=8)
    add(engine, "short", max_tokens=50)
    add(engine, "long", prompt=60)
    sizes: list[tuple[str, int]] = []
    plans = [engine.schedule(), engine.schedule()]
    for _ in range(6):
        sizes.extend((chunk.key.request_id, len(chunk.token_ids)) for chunk in plans[0].chunks)
        complete(engine, plans.pop(0))
        plans.append(engine.schedule())

    assert sizes == [("short", 3), ("long", 8), ("short", 1), ("long", 8), ("short", 1), ("long", 8)]


def test_steps_are_complete_in_the_order_of_their_plans() -> None:
    engine = scheduler(max_in_flight=2)
    add(engine, "a")
    add(engine, "b")
    engine.schedule()
    second = engine.schedule()

    with pytest.raises(AssertionError, match="in the order of their plans"):
        complete(engine, second)


def test_a_sequence_that_is_under_way_is_not_preempted_and_who_needs_its_blocks_waits() -> None:
    engine = scheduler(max_in_flight=2, num_blocks=4)
    add(engine, "first", prompt=4, max_tokens=12)
    first = engine.schedule()
    add(engine, "second", prompt=3, max_tokens=12)
    second = engine.schedule()
    for _ in range(4):  # until each has two blocks, and "first" has filled them
        complete(engine, first)
        first = engine.schedule()
        complete(engine, second)
        second = engine.schedule()

    complete(engine, first)
    waits = engine.schedule()
    complete(engine, second)
    goes_on = engine.schedule()

    assert (names(waits), waits.preempted) == ([], ())
    assert names(goes_on) == ["first"]
    assert [key.request_id for key in goes_on.preempted] == ["second"]


def test_blocks_of_a_sequence_that_was_stopped_under_way_are_given_to_others_at_once() -> None:
    engine = scheduler(max_in_flight=2, num_blocks=4)
    add(engine, "old", prompt=10, max_tokens=6)
    old = engine.schedule()
    add(engine, "new", prompt=10, max_tokens=6)

    engine.stop_sequence("old", 0)
    new = engine.schedule()

    assert set(new.chunks[0].new_block_ids) & set(old.chunks[0].new_block_ids)
    assert new.chunks[0].start == 0
    assert (complete(engine, old), complete(engine, new)) == ([], ["new"])


def test_siblings_wait_until_their_prompt_is_complete_and_not_only_under_way() -> None:
    engine = scheduler(max_in_flight=2)
    add(engine, "a", prompt=10, num_sequences=3)

    first, second = engine.schedule(), engine.schedule()
    complete(engine, first)
    third, fourth = engine.schedule(), engine.schedule()

    assert (len(first.chunks), len(second.chunks)) == (1, 0)
    assert [chunk.start for chunk in third.chunks + fourth.chunks] == [10, 8, 8]


def test_a_prefix_is_not_found_before_it_is_complete() -> None:
    engine = scheduler(max_in_flight=2)
    prompt = tuple(range(10))

    def ask(name: str) -> None:
        engine.add(EngineRequest(request_id=name, prompt_ids=prompt, sampling=Sampling(max_tokens=4)))

    ask("a")
    first = engine.schedule()
    ask("b")
    second = engine.schedule()
    complete(engine, first)
    ask("c")
    third = engine.schedule()

    starts = [{chunk.key.request_id: chunk.start for chunk in plan.chunks} for plan in (first, second, third)]
    assert starts == [{"a": 0}, {"b": 0}, {"a": 10, "c": 8}]
