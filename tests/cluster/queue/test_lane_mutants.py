"""The suite can fail: with one rule of the protocol broken, walks or a named test see it.

On the queue in memory alone, since its rules can be broken from outside.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

import tests.cluster.queue.test_interleavings_of_one_server as one_server
import tests.cluster.queue.test_interleavings_when_it_forgets as forgets
import tests.cluster.queue.test_queue_contract_claim as claim_contract
import tests.cluster.queue.test_queue_contract_restore as restore_contract
import tests.cluster.queue.test_queue_contract_usage as usage_contract
from shardline_cluster.queue.records import DisconnectAction
from tests.cluster.queue import lane_mutants as rules
from tests.cluster.queue.lane_harness import LaneHarness
from tests.cluster.queue.lane_judge import ViolationError
from tests.cluster.queue.lane_stage import SetStage, Stage
from tests.cluster.queue.lane_walk import walk
from tests.cluster.queue.lane_world import Wish
from tests.cluster.queue.memory_lane_harness import MemoryLaneHarness

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
WALKS = 300
LONG_WALKS = 5_000

STAGED: tuple[tuple[rules.Mutant, Callable[[SetStage], None]], ...] = (
    (rules.no_nonce, forgets.test_03_a_zombie_with_an_equal_epoch_is_fenced_by_its_nonce),
    (rules.no_overlap, forgets.test_a_router_that_slept_through_the_hold_restores_under_a_new_owner),
    (rules.an_old_detach_counts, one_server.test_31_a_detach_that_was_overtaken_by_the_new_attach_is_ignored),
    (
        rules.a_dead_router_cancels,
        lambda stage_on: one_server.test_12_a_client_of_a_dead_router_has_two_leases_to_come_back(
            stage_on, DisconnectAction.CANCEL
        ),
    ),
    (
        rules.a_dead_router_counts_last,
        lambda stage_on: one_server.test_12_another_client_that_leaves_takes_no_lease_from_it(
            stage_on, DisconnectAction.CANCEL, "another"
        ),
    ),
    (
        rules.an_attach_takes_a_grace_back,
        lambda stage_on: one_server.test_12_another_client_that_leaves_takes_no_lease_from_it(
            stage_on, DisconnectAction.CANCEL, "the dead one"
        ),
    ),
    (rules.leaders_restore_nothing, forgets.test_32_nothing_is_held_for_ever_by_a_restore_whose_reply_is_lost),
    (rules.a_commit_takes_no_notice_of_deadlines, forgets.test_14_a_deadline_in_a_hold_waits_for_its_end),
)
CONTRACT: tuple[tuple[rules.Mutant, Callable[[LaneHarness], Awaitable[None]]], ...] = (
    (rules.a_claim_is_not_repeated, claim_contract.test_the_same_claim_brings_the_same_requests_and_mail),
    (rules.mail_is_read_once, claim_contract.test_mail_comes_again_until_it_is_acknowledged),
    (rules.an_end_overwrites_an_end, restore_contract.test_an_end_that_is_there_wins),
    (
        rules.what_is_forgotten_comes_back,
        usage_contract.test_what_was_forgotten_on_demand_is_neither_taken_back_nor_counted_again,
    ),
    (
        rules.an_end_that_has_run_out_counts_again,
        usage_contract.test_an_end_that_comes_back_after_its_record_ran_out_is_not_counted_again,
    ),
)


@pytest.mark.parametrize("mutant", rules.FOUND_BY_CHANCE, ids=lambda mutant: mutant.__name__)
def test_the_suite_catches_mutants(mutant: rules.Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)

    assert some_walk_fails(WALKS), f"no walk met what follows from: {mutant.__doc__}"


@pytest.mark.skipif(not DEEP, reason="takes minutes; HYPOTHESIS_PROFILE=deep runs it")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", rules.FOUND_BY_LONG_WALKS, ids=lambda mutant: mutant.__name__)
def test_long_walks_catch_more_mutants(mutant: rules.Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)

    assert some_walk_fails(LONG_WALKS), f"no walk met what follows from: {mutant.__doc__}"


@pytest.mark.parametrize(("mutant", "interleaving"), STAGED, ids=[mutant.__name__ for mutant, _ in STAGED])
def test_an_interleaving_catches_what_is_too_rare_for_walks(
    mutant: rules.Mutant, interleaving: Callable[[SetStage], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)

    with asyncio.Runner() as runner:

        def stage_on(*wishes: Wish, length: int = 6) -> Stage:
            return Stage(MemoryLaneHarness(), runner.get_loop(), *wishes, length=length)

        with pytest.raises(AssertionError):
            interleaving(stage_on)


@pytest.mark.parametrize(("mutant", "promise"), CONTRACT, ids=[mutant.__name__ for mutant, _ in CONTRACT])
async def test_the_contract_catches_what_others_heal(
    mutant: rules.Mutant, promise: Callable[[LaneHarness], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = MemoryLaneHarness()
    await harness.queue().view()
    await harness.advance(harness.terms.hold_ms)
    mutant(monkeypatch)

    with pytest.raises(AssertionError):
        await promise(harness)


def some_walk_fails(num_walks: int) -> bool:
    """Whether one of so many walks meets something forbidden."""
    with asyncio.Runner() as runner:
        harness = MemoryLaneHarness()
        return any(fails(harness, runner.get_loop(), seed) for seed in range(num_walks))


def fails(harness: LaneHarness, loop: asyncio.AbstractEventLoop, seed: int) -> bool:
    """Whether this walk meets something forbidden."""
    try:
        walk(harness, loop, seed)
    except ViolationError:
        return True
    return False
