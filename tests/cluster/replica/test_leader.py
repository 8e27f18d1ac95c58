"""A leader with a simulated engine and a queue in memory, from the claim to the end, through every mishap."""

import asyncio
import dataclasses
import math

import pytest

from shardline_cluster.queue.log_encoding import unpack_ids, unpack_logprobs
from shardline_cluster.queue.records import RequestState, SequenceFinish
from shardline_cluster.replica.leader import LeaderLimits, ReplicaFailedError
from shardline_workers.engine import SequenceStep, StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from shardline_workers.simulated_tokens import TokenMode, check_chain
from tests.cluster.replica.simulated_lane import PROMPT, SimulatedLane
from tests.cluster.replica.virtual_time import run_virtually

AUDIT = SimulatedEngineConfig(tokens=TokenMode.PER_INCARNATION)


def _replay(text: str) -> SimulatedEngineConfig:
    return SimulatedEngineConfig(tokens=TokenMode.REPLAY, replay_text=text)


async def _is_whole(lane: SimulatedLane, request_id: str, num_tokens: int, sequence: int = 0) -> None:
    """Nothing is missing, nothing is twice, nothing is mixed."""
    ids = await lane.ids(request_id, sequence)
    assert len(ids) == num_tokens
    assert check_chain(tuple(PROMPT.encode()), ids, sequence=sequence) is None


def test_a_request_is_claimed_computed_and_committed_to_its_end() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead(config=AUDIT)
            request_id = await lane.submit(max_tokens=8)

            end = await lane.end(request_id)

            assert (end.state, end.offsets, end.finishes) == (RequestState.DONE, (8,), (SequenceFinish("length"),))
            await _is_whole(lane, request_id, 8)
            assert not leader.engine.has_work()

    run_virtually(test())


def test_three_sequences_of_different_lengths_each_end_where_they_should() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead()
            probe = await lane.submit(max_tokens=12, n=3)
            await lane.end(probe)
            texts = [bytes(await lane.ids(probe, s)).decode() for s in range(3)]
            stops = [texts[0][3:5], texts[1][7:9]]
            lane._num_requests = 0  # the same seed again, under an id of its own

            await lane.queue.forget(probe, "tenant")
            request_id = await lane.submit(max_tokens=12, n=3, stop=stops)
            end = await lane.end(request_id)

            lengths = [min([text.find(s) + 2 for s in stops if s in text], default=12) for text in texts]
            assert end.offsets == tuple(lengths)
            assert len(set(lengths)) == 3
            assert [f.reason for f in end.finishes if f] == ["stop", "stop", "length"]

    run_virtually(test())


@pytest.mark.parametrize("one_in", [2, 3, 5])
def test_lost_replies_change_nothing(one_in: int) -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead(config=AUDIT)
            leader.queue.lose_one_in = one_in
            ids = [await lane.submit(max_tokens=30, n=2) for _ in range(3)]

            ends = [await lane.end(i) for i in ids]

            assert [end.offsets for end in ends] == [(30, 30)] * 3
            for request_id in ids:
                await _is_whole(lane, request_id, 30, sequence=1)
                assert (await lane.look(request_id)).epoch == 1

    run_virtually(test())


def test_late_copies_of_calls_change_nothing() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead("leader-1", AUDIT)
            leader.queue.runs_late_copies = True
            ids = [await lane.submit(max_tokens=60) for _ in range(3)]
            await lane.grows_to(ids[2], 20)
            leader.stop.set()
            await leader.task
            lane.lead("leader-2", AUDIT).queue.runs_late_copies = True

            ends = [await lane.end(i) for i in ids]

            assert [end.offsets for end in ends] == [(60,)] * 3
            for request_id in ids:
                await _is_whole(lane, request_id, 60)

    run_virtually(test())


def test_an_outage_longer_than_the_lease_stops_stepping_at_the_bound_and_goes_on_afterwards() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead(config=AUDIT, limits=LeaderLimits(max_uncommitted_tokens=50))
            request_id = await lane.submit(max_tokens=3000)
            await lane.grows_to(request_id, 20)

            lane.server.go_down()
            await asyncio.sleep(3 * lane.terms.lease_ms / 1000)
            lane.server.come_up()
            await lane.grows_to(request_id, 21)
            after_outage = len(await lane.ids(request_id))
            end = await lane.end(request_id, within_s=200)

            assert after_outage <= 20 + 50 + 5
            assert end.offsets == (3000,)
            assert (await lane.look(request_id)).epoch == 1
            await _is_whole(lane, request_id, 3000)
            assert not leader.task.done()

    run_virtually(test())


def test_a_killed_leaders_request_goes_on_at_the_very_next_token_elsewhere() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            first = lane.lead("leader-1", AUDIT)
            request_id = await lane.submit(max_tokens=100)
            await lane.grows_to(request_id, 30)

            await first.kill()
            lane.lead("leader-2", AUDIT)
            end = await lane.end(request_id)

            assert end.offsets == (100,)
            snapshot = await lane.look(request_id)
            assert (snapshot.epoch, snapshot.attempts) == (2, 0)
            await _is_whole(lane, request_id, 100)

    run_virtually(test())


def test_a_wedged_step_fails_the_replica_and_another_one_takes_over() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            wedged = lane.lead("leader-1", AUDIT)
            request_id = await lane.submit(max_tokens=100)
            await lane.grows_to(request_id, 10)
            wedged.thread.sleep(1e9)
            lane.lead("leader-2", AUDIT)

            end = await lane.end(request_id)

            with pytest.raises(ReplicaFailedError, match=r"longer than its limit of 5\.0 s"):
                await wedged.task
            assert end.offsets == (100,)
            await _is_whole(lane, request_id, 100)

    run_virtually(test())


def test_a_long_prefill_keeps_its_lease_by_heartbeats() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            slow = dataclasses.replace(AUDIT, times=SimulatedStepTimes(step_s=4 * lane.terms.lease_ms / 1000))
            lane.lead("leader-1", slow)
            request_id = await lane.submit(max_tokens=2)
            await asyncio.sleep(1)
            lane.lead("leader-2", AUDIT)

            end = await lane.end(request_id, within_s=200)

            assert end.offsets == (2,)
            assert (await lane.look(request_id)).epoch == 1

    run_virtually(test())


@pytest.mark.parametrize("others_claim_first", [False, True])
def test_a_long_prefill_keeps_its_request_when_the_claim_is_forgotten(others_claim_first: bool) -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            slow = dataclasses.replace(AUDIT, times=SimulatedStepTimes(step_s=4 * lane.terms.lease_ms / 1000))
            first = lane.lead("leader-1", slow)
            await asyncio.sleep(1)
            request_id = await lane.submit(max_tokens=2)
            snapshot = lane.server.snapshot()
            await asyncio.sleep(1)
            assert (await lane.look(request_id)).epoch == 1

            if others_claim_first:
                lane.lead("leader-2", AUDIT)
                await asyncio.sleep(0.1)
            lane.server.rollback(snapshot)
            await asyncio.sleep(1)
            adopted = await lane.look(request_id)
            end = await lane.end(request_id, within_s=200)

            assert (adopted.state, adopted.epoch) == (RequestState.RUNNING, 1)
            assert end.offsets == (2,)
            assert (await lane.look(request_id)).epoch == 1
            assert not first.task.done()

    run_virtually(test())


def test_an_outage_longer_than_the_lease_robs_neither_of_two_leaders() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            small = dataclasses.replace(AUDIT, max_num_seqs=2)
            leaders = [lane.lead("leader-1", small), lane.lead("leader-2", small)]
            ids = [await lane.submit(max_tokens=2000) for _ in range(4)]
            for request_id in ids:
                await lane.grows_to(request_id, 5)

            lane.server.go_down()
            await asyncio.sleep(5 * lane.terms.lease_ms / 1000)
            lane.server.come_up()
            ends = [await lane.end(i, within_s=200) for i in ids]

            assert [end.offsets for end in ends] == [(2000,)] * 4
            assert [(await lane.look(i)).epoch for i in ids] == [1] * 4
            assert not any(leader.task.done() for leader in leaders)

    run_virtually(test())


def test_draining_hands_over_at_a_token_boundary_and_counts_nothing() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            first = lane.lead("leader-1", AUDIT)
            ids = [await lane.submit(max_tokens=200) for _ in range(4)]
            await lane.grows_to(ids[-1], 20)

            first.stop.set()
            async with asyncio.timeout(2):
                await first.task
            handed_back = await lane.look(ids[0])
            lane.lead("leader-2", AUDIT)
            ends = [await lane.end(i) for i in ids]

            assert handed_back.state is RequestState.WAITING
            assert [end.offsets for end in ends] == [(200,)] * 4
            for request_id in ids:
                snapshot = await lane.look(request_id)
                assert (snapshot.epoch, snapshot.attempts) == (2, 0)
                await _is_whole(lane, request_id, 200)

    run_virtually(test())


def test_a_drain_message_in_the_inbox_does_the_same() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead("leader-1", AUDIT)
            request_id = await lane.submit(max_tokens=1000)
            await lane.grows_to(request_id, 5)

            await lane.queue.drain("leader-1")
            async with asyncio.timeout(3):
                await leader.task

            assert (await lane.look(request_id)).state is RequestState.WAITING

    run_virtually(test())


def test_draining_while_the_queue_is_away_gives_up_in_time_and_says_so() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead("leader-1", AUDIT)
            request_id = await lane.submit(max_tokens=1000)
            await lane.grows_to(request_id, 5)
            lane.server.go_down()

            leader.stop.set()
            async with asyncio.timeout(10):
                with pytest.raises(ReplicaFailedError, match="1 requests could not be handed back within 8 s"):
                    await leader.task

    run_virtually(test())


@pytest.mark.parametrize("stop", ["STOP", "é!", "x"])
def test_a_stop_string_over_several_steps_ends_at_the_token_that_completes_it(stop: str) -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            text = f"some text 🎉 before {stop} and after"
            lane.lead(config=_replay(text))
            request_id = await lane.submit(max_tokens=60, stop=[stop])

            end = await lane.end(request_id)

            before = text[: text.index(stop)]
            assert end.finishes == (SequenceFinish("stop", stop, len(before)),)
            assert end.offsets == (len((before + stop).encode()),)
            assert bytes(await lane.ids(request_id)).decode() == before + stop

    run_virtually(test())


def test_a_stop_string_cut_by_a_change_of_leader_gives_the_same_text_and_usage() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            config = _replay("0123456789STOP and more")
            first = lane.lead("leader-1", config)
            request_id = await lane.submit(max_tokens=40, stop=["9STOP"])
            await lane.grows_to(request_id, 12)  # in the middle of the stop string

            await first.kill()
            cut = await lane.ids(request_id)
            lane.lead("leader-2", config)
            end = await lane.end(request_id)

            assert b"0123456789ST" in bytes(cut)
            assert len(cut) < 14
            assert end.finishes == (SequenceFinish("stop", "9STOP", 9),)
            assert end.offsets == (14,)

    run_virtually(test())


def test_a_log_that_ends_in_a_stop_without_saying_so_is_ended_by_who_claims_it() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            config = _replay("0123STOP45")
            first = lane.lead("leader-1", config)
            ids = [await lane.submit(max_tokens=40, stop=["STOP"]), await lane.submit(max_tokens=4)]
            snapshot = lane.server.snapshot()
            await lane.grows_to(ids[0], 2)
            lane.server.rollback(snapshot)  # a hold begins: no end is allowed
            await lane.grows_to(ids[0], 8)
            await lane.grows_to(ids[1], 4)
            assert (await lane.look(ids[0])).end is None

            await first.kill()
            lane.lead("leader-2", config)
            ends = [await lane.end(i) for i in ids]

            assert [end.finishes[0] for end in ends] == [SequenceFinish("stop", "STOP", 4), SequenceFinish("length")]
            assert [end.offsets for end in ends] == [(8,), (4,)]

    run_virtually(test())


@pytest.mark.parametrize("lost_tokens", [1, 5, 50])
def test_a_rollback_under_a_running_request_loses_nothing(lost_tokens: int) -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead("leader-1", AUDIT)
            request_id = await lane.submit(max_tokens=1000)
            await lane.grows_to(request_id, 60)
            snapshot = lane.server.snapshot()
            await lane.grows_to(request_id, 60 + lost_tokens)
            seen = await lane.ids(request_id)

            lane.server.rollback(snapshot)
            await lane.grows_to(request_id, len(seen))

            assert (await lane.ids(request_id))[: len(seen)] == seen
            end = await lane.end(request_id)
            assert end.offsets == (1000,)
            assert (await lane.look(request_id)).epoch == 1
            await _is_whole(lane, request_id, 1000)

    run_virtually(test())


def test_a_rollback_of_submit_and_claim_is_undone_by_the_leaders_restore() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead("leader-1", AUDIT)
            await asyncio.sleep(0.5)
            snapshot = lane.server.snapshot()
            request_id = await lane.submit(max_tokens=500, n=2)
            await lane.grows_to(request_id, 30)
            seen = await lane.ids(request_id, 1)

            lane.server.rollback(snapshot)
            await asyncio.sleep(0.5)

            assert (await lane.ids(request_id, 1))[: len(seen)] == seen
            assert (await lane.look(request_id)).epoch == 1
            end = await lane.end(request_id)
            assert end.offsets == (500, 500)
            await _is_whole(lane, request_id, 500, sequence=1)
            assert not leader.task.done()

    run_virtually(test())


def test_a_rollback_of_a_finish_is_undone_by_the_memory_of_ends() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead("leader-1", AUDIT)
            await asyncio.sleep(0.5)
            snapshot = lane.server.snapshot()
            request_id = await lane.submit(max_tokens=5)
            end = await lane.end(request_id)
            ids = await lane.ids(request_id)

            lane.server.rollback(snapshot)
            await asyncio.sleep(0.5)

            restored = await lane.look(request_id)
            assert restored.end is not None
            assert restored.end.same_as(end)
            assert await lane.ids(request_id) == ids

    run_virtually(test())


def test_a_server_that_forgot_the_leader_is_told_again_what_it_is() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead("leader-1")
            await asyncio.sleep(0.5)

            lane.server.rollback(None)
            await asyncio.sleep(0.5)

            (leader,) = (await lane.queue.view()).value.leaders
            assert '"deployment":"simulated"' in leader.status

    run_virtually(test())


def test_a_cancelled_request_leaves_the_engine_soon() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead(config=SimulatedEngineConfig(max_num_seqs=1))
            request_id = await lane.submit(max_tokens=3000)
            await lane.grows_to(request_id, 5)

            await lane.queue.cancel(request_id, "tenant")
            await asyncio.sleep(0.2)

            assert not leader.engine.has_work()

    run_virtually(test())


def test_a_deadline_in_mid_generation_ends_the_request_as_expired() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead()
            request_id = await lane.submit(max_tokens=3000, timeout_ms=1000)

            end = await lane.end(request_id, within_s=30)
            await asyncio.sleep(0.2)

            assert end.state is RequestState.EXPIRED
            assert not leader.engine.has_work()

    run_virtually(test())


def test_work_is_claimed_only_as_far_as_there_is_room() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead(config=SimulatedEngineConfig(max_num_seqs=2))
            ids = [await lane.submit(max_tokens=500) for _ in range(5)]
            await lane.grows_to(ids[1], 5)

            states = [(await lane.look(i)).state for i in ids]
            for request_id in ids:
                await lane.end(request_id)

            assert states == [RequestState.RUNNING] * 2 + [RequestState.WAITING] * 3

    run_virtually(test())


def test_an_idle_leader_asks_seldom_and_is_woken_by_a_submit() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead()
            await asyncio.sleep(100)
            num_claims, num_commits = len(leader.queue.claims), len(leader.queue.commits)
            began = asyncio.get_running_loop().time()
            request_id = await lane.submit(max_tokens=1)
            await lane.end(request_id)
            took_s = asyncio.get_running_loop().time() - began

            assert 80 <= num_claims <= 130
            assert num_commits <= 60
            assert took_s < 0.1

    run_virtually(test())


def test_an_unreadable_payload_fails_the_request_alone() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead()
            bad = await lane.submit(payload=b"\xff\xff")
            good = await lane.submit()

            failed, done = await lane.end(bad), await lane.end(good)

            assert (failed.state, done.state) == (RequestState.FAILED, RequestState.DONE)
            assert "no RequestPayload" in failed.error
            assert not leader.task.done()

    run_virtually(test())


def test_a_request_that_never_fits_fails_with_the_bound() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead(config=SimulatedEngineConfig(max_model_len=16))
            request_id = await lane.submit(max_tokens=100)

            end = await lane.end(request_id)

            assert end.state is RequestState.FAILED
            assert "this engine holds 16" in end.error

    run_virtually(test())


class BrokenEngine(SimulatedEngine):
    """Fails one request at its third step, or altogether."""

    def __init__(self, engine: SimulatedEngine, *, whole: bool) -> None:
        super().__init__(engine._config, sleep=engine._sleep)
        self._whole = whole
        self._num_steps = 0

    def step(self) -> StepResult:
        result = super().step()
        self._num_steps += 1
        if self._num_steps != 3:
            return result
        if self._whole:
            raise RuntimeError("the device is gone")
        broken, *rest = result.sequences
        self.cancel(broken.request_id)
        error = SequenceStep(request_id=broken.request_id, sequence=0, token_ids=(), error="NaN in its logits")
        return dataclasses.replace(result, sequences=(error, *rest))


def test_an_engine_error_for_one_request_fails_it_and_spares_its_neighbour() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead(wrap=lambda engine: BrokenEngine(engine, whole=False))
            ids = [await lane.submit(), await lane.submit()]

            ends = [await lane.end(i) for i in ids]

            assert [end.state for end in ends] == [RequestState.FAILED, RequestState.DONE]
            assert ends[0].error == "NaN in its logits"

    run_virtually(test())


def test_an_engine_that_raises_fails_the_replica_and_its_work_goes_elsewhere() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            broken = lane.lead("leader-1", AUDIT, wrap=lambda engine: BrokenEngine(engine, whole=True))
            request_id = await lane.submit(max_tokens=10)

            with pytest.raises(ReplicaFailedError, match="a step failed: RuntimeError: the device is gone"):
                await broken.task
            lane.lead("leader-2", AUDIT)
            end = await lane.end(request_id)

            assert end.offsets == (10,)
            await _is_whole(lane, request_id, 10)

    run_virtually(test())


def test_log_probabilities_reach_the_log() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead()
            request_id = await lane.submit(max_tokens=4, num_logprobs=2)

            await lane.end(request_id)

            assert len((await lane.look(request_id)).logs[0].logprobs) == 4 * 3 * 8

    run_virtually(test())


def test_log_probabilities_of_the_prompt_are_a_log_of_their_own_and_the_output_s_are_unknown() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            lane.lead()
            request_id = await lane.submit(max_tokens=4, n=2, num_prompt_logprobs=3)

            end = await lane.end(request_id)

            logs = (await lane.look(request_id)).logs
            assert end.offsets == (4, 4, len(PROMPT))
            assert end.finishes == (SequenceFinish("length"),) * 3
            assert unpack_ids(logs[2].ids) == tuple(PROMPT.encode())
            first, *others = unpack_logprobs(logs[2].logprobs, 3)
            assert (math.isnan(first.chosen), first.top) == (True, ())
            assert [told.chosen for told in others] == pytest.approx([-math.log(2)] * (len(PROMPT) - 1))
            assert all(len(told.top) == 3 for told in others)
            assert all(math.isnan(told.chosen) for told in unpack_logprobs(logs[0].logprobs, 3))

    run_virtually(test())


def test_a_prompt_that_was_logged_by_another_leader_is_not_logged_again() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            first = lane.lead(config=AUDIT)
            request_id = await lane.submit(max_tokens=30, num_logprobs=1, num_prompt_logprobs=2)
            await lane.grows_to(request_id, 5)
            before = (await lane.look(request_id)).logs[1]
            await first.kill()
            lane.lead(config=AUDIT)

            end = await lane.end(request_id)

            assert end.offsets == (30, len(PROMPT))
            assert (await lane.look(request_id)).logs[1] == before
            await _is_whole(lane, request_id, 30)

    run_virtually(test())


def test_an_idle_engine_is_probed() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            leader = lane.lead(wrap=lambda engine: BrokenEngine(engine, whole=True))

            await asyncio.sleep(18)
            assert not leader.task.done()
            await asyncio.sleep(4)
            assert leader.task.done()

            with pytest.raises(ReplicaFailedError, match="the device is gone"):
                await leader.task

    run_virtually(test())
