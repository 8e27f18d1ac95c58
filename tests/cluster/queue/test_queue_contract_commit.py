"""Contract of every request queue: committing, its codes in their order, its reply."""

import struct

import pytest

from shardline_cluster.errors import InvalidCallError
from shardline_cluster.queue.answers import CommitCode, GrantedRequest, InboxKind
from shardline_cluster.queue.calls import CommitEntry, SequenceCommit
from shardline_cluster.queue.held_digest import held_digest
from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs
from shardline_cluster.queue.records import Grant, RequestState, SequenceFinish
from tests.cluster.queue.lane_calls import STOP, HandLeader, grant_of, log_ids, look, some, submit
from tests.cluster.queue.lane_harness import LaneHarness


async def claimed(harness: LaneHarness, **changes: object) -> tuple[HandLeader, GrantedRequest]:
    """A leader with one request."""
    await submit(harness, **changes)  # type: ignore[arg-type]  # fields of a submission
    leader = HandLeader(harness.queue())
    return leader, (await leader.claim())[0]


async def test_tokens_are_appended_and_counted(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)

    results = [await leader.commit(granted, some(0, [1, 2])), await leader.commit(granted, some(2, [2**32 - 1]))]

    assert [(r.code, r.lengths) for r in results] == [(CommitCode.OK, (2,)), (CommitCode.OK, (3,))]
    assert log_ids((await look(harness, granted.info)).logs) == [1, 2, 2**32 - 1]


async def test_a_finish_ends_the_request_with_its_offsets(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    finish = SequenceFinish("stop", "\n\n∎", 17)

    result = await leader.commit(granted, some(0, [1, 2], finish))

    assert result.code is CommitCode.OK
    assert result.end is not None
    assert (result.end.state, result.end.offsets, result.end.finishes) == (RequestState.DONE, (2,), (finish,))
    assert result.end.ended_ms == await harness.now_ms()
    snapshot = await look(harness, granted.info)
    assert snapshot.end == result.end
    assert snapshot.logs[0].finish == finish


async def test_a_request_ends_with_its_last_sequence(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness, num_sequences=3)

    first = await leader.commit(granted, some(0, [1], STOP, 0), some(0, [2, 3], None, 1), some(0, [4], None, 2))
    second = await leader.commit(granted, some(1, [5, 6], STOP, 2))
    assert (await look(harness, granted.info)).state is RequestState.RUNNING
    last = await leader.commit(granted, some(2, [], SequenceFinish("length"), 1))

    assert (first.end, second.end) == (None, None)
    assert second.lengths == (1, 2, 3)
    assert last.end is not None
    assert last.end.offsets == (1, 2, 3)
    assert last.end.finishes == (STOP, SequenceFinish("length"), STOP)


async def test_an_error_ends_the_request_as_failed(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)

    result = await leader.commit(granted, some(0, [1]), error="the engine refused it")

    assert result.end is not None
    assert (result.end.state, result.end.error, result.end.offsets) == (
        RequestState.FAILED,
        "the engine refused it",
        (1,),
    )


async def test_logprobs_lie_beside_their_tokens(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness, num_logprobs=1)
    entries = [pack_logprobs(k, -0.5, [k + 1], [-0.25], num_logprobs=1) for k in range(3)]

    await leader.commit(granted, SequenceCommit(0, 0, pack_ids([0, 1]), b"".join(entries[:2])))
    await leader.commit(granted, SequenceCommit(0, 1, pack_ids([1, 2]), b"".join(entries[1:])))

    assert (await look(harness, granted.info)).logs[0].logprobs == b"".join(entries)


async def test_an_unknown_request_is_gone(harness: LaneHarness) -> None:
    leader = HandLeader(harness.queue())
    entry = CommitEntry("lane-nobody", Grant(1, b"12345678"), (some(0, [1]),))

    result = (await leader.commit_all(entry)).value.results[0]

    assert (result.id, result.code) == ("lane-nobody", CommitCode.GONE)


async def test_an_end_of_another_is_told(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    await leader.commit(granted, some(0, [1]))
    await harness.queue().cancel(granted.info.id, granted.info.submission.tenant)

    result = await leader.commit(granted, some(1, [2]))

    assert result.code is CommitCode.ENDED
    assert result.end is not None
    assert (result.end.state, result.end.offsets) == (RequestState.CANCELLED, (1,))
    assert log_ids((await look(harness, granted.info)).logs) == [1]


@pytest.mark.parametrize("other", [Grant(1, b"\x00" * 8), Grant(2, b"er-00001"), Grant(0, b"")])
async def test_another_grant_is_fenced(harness: LaneHarness, other: Grant) -> None:
    leader, granted = await claimed(harness)
    entry = CommitEntry(granted.info.id, other, (some(0, [1]),))

    result = (await leader.commit_all(entry)).value.results[0]

    assert other != granted.grant
    assert (result.code, result.epoch) == (CommitCode.FENCED, 1)
    assert log_ids((await look(harness, granted.info)).logs) == []


async def test_a_waiting_request_fences_its_former_owner(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    await leader.release(granted)

    result = await leader.commit(granted, some(0, [1]))

    assert (result.code, result.epoch) == (CommitCode.FENCED, 1)


async def test_tokens_past_the_deadline_are_not_taken(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness, timeout_ms=1_000)
    await leader.commit(granted, some(0, [1]))
    await harness.advance(1_000)

    result = await leader.commit(granted, some(1, [2], STOP))

    assert result.code is CommitCode.ENDED
    assert result.end is not None
    assert (result.end.state, result.end.offsets) == (RequestState.EXPIRED, (1,))


async def test_a_gap_is_behind_and_changes_no_sequence(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness, num_sequences=2)

    result = await leader.commit(granted, some(0, [1]), some(1, [9], None, 1))

    assert (result.code, result.lengths) == (CommitCode.BEHIND, (0, 0))
    assert (await leader.commit(granted)).lengths == (0, 0)


async def test_an_equal_overlap_appends_only_the_rest(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    await leader.commit(granted, some(0, [1, 2, 3]))

    results = [
        await leader.commit(granted, some(1, [2, 3, 4, 5])),
        await leader.commit(granted, some(0, [1, 2])),
        await leader.commit(granted, some(5, [])),
    ]

    assert [(r.code, r.lengths) for r in results] == [(CommitCode.OK, (5,))] * 3
    assert log_ids((await look(harness, granted.info)).logs) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "sent", [some(0, [9]), some(1, [2, 9]), some(2, [9, 4]), some(0, [1, 2], STOP)], ids=["first", "mid", "last", "end"]
)
async def test_other_ids_than_the_logs_are_a_conflict(harness: LaneHarness, sent: SequenceCommit) -> None:
    leader, granted = await claimed(harness)
    await leader.commit(granted, some(0, [1, 2, 3]))

    result = await leader.commit(granted, sent)

    assert result.code is CommitCode.CONFLICT
    assert log_ids((await look(harness, granted.info)).logs) == [1, 2, 3]


async def test_nothing_follows_a_recorded_finish(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness, num_sequences=2)
    await leader.commit(granted, some(0, [1], STOP))

    result = await leader.commit(granted, some(1, [2]))
    resent = await leader.commit(granted, some(0, [1], STOP))

    assert (result.code, resent.code) == (CommitCode.CONFLICT, CommitCode.OK)


async def test_one_call_answers_each_entry_for_itself(harness: LaneHarness) -> None:
    for number in range(3):
        await submit(harness, number)
    leader = HandLeader(harness.queue())
    a, b, c = await leader.claim()
    await leader.release(b)

    entries = [CommitEntry(g.info.id, g.grant, (some(k, [k]),)) for k, g in enumerate((a, b, c))]
    results = (await leader.commit_all(*entries)).value.results

    assert [r.id for r in results] == [a.info.id, b.info.id, c.info.id]
    assert [r.code for r in results] == [CommitCode.OK, CommitCode.FENCED, CommitCode.BEHIND]


async def test_the_reply_shows_what_is_held(harness: LaneHarness) -> None:
    await submit(harness, 1)
    await submit(harness, 2)
    leader = HandLeader(harness.queue())
    granted = await leader.claim()

    told = await leader.beat()
    short = (await leader.commit_all()).value

    held = tuple(sorted(grant_of(g) for g in granted))
    assert told.held == held
    assert (short.held, short.num_held, short.held_digest) == (None, 2, held_digest(held))


async def test_an_ended_request_is_told_to_its_owner_and_held_no_more(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    await harness.queue().cancel(granted.info.id, granted.info.submission.tenant)

    told = await leader.beat()

    assert [(entry.kind, entry.id) for entry in told.inbox] == [(InboxKind.ENDED, granted.info.id)]
    assert told.held == ()


async def test_the_owners_own_finish_is_no_mail(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    await leader.commit(granted, some(0, [1], STOP))

    assert (await leader.beat()).inbox == ()


async def test_a_heartbeat_keeps_the_lease(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    for _ in range(5):
        await harness.advance(harness.terms.lease_ms - 1_000)
        await harness.queue().sweep("router-1")
        await leader.beat()

    assert (await leader.commit(granted, some(0, [1]))).code is CommitCode.OK


@pytest.mark.parametrize(
    "wrong",
    [
        SequenceCommit(3, 0, pack_ids([1])),
        SequenceCommit(-1, 0, pack_ids([1])),
        SequenceCommit(0, 0, b"\x01\x00\x00"),
        SequenceCommit(0, -1, pack_ids([1])),
        SequenceCommit(0, 0, pack_ids([1]), struct.pack("<If", 1, 0.0)),
    ],
    ids=["no such sequence", "negative sequence", "half an id", "negative offset", "unwanted log-probabilities"],
)
async def test_a_malformed_entry_changes_nothing_in_the_whole_call(harness: LaneHarness, wrong: SequenceCommit) -> None:
    await submit(harness, 1)
    await submit(harness, 2)
    leader = HandLeader(harness.queue())
    good, bad = await leader.claim()
    entries = [
        CommitEntry(good.info.id, good.grant, (some(0, [1], STOP),)),
        CommitEntry(bad.info.id, bad.grant, (wrong,)),
    ]

    with pytest.raises(InvalidCallError):
        await leader.commit_all(*entries)

    snapshot = await look(harness, good.info)
    assert (snapshot.state, log_ids(snapshot.logs)) == (RequestState.RUNNING, [])


async def test_a_sequence_that_is_named_twice_changes_nothing(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)

    with pytest.raises(InvalidCallError, match="sequence 0 is named twice"):
        await leader.commit(granted, some(0, [1]), some(0, [2, 3]))

    assert log_ids((await look(harness, granted.info)).logs) == []


async def test_a_request_that_is_named_twice_changes_nothing(harness: LaneHarness) -> None:
    leader, granted = await claimed(harness)
    entries = [CommitEntry(granted.info.id, granted.grant, (some(k, [k]),)) for k in range(2)]

    with pytest.raises(InvalidCallError, match="named twice"):
        await leader.commit_all(*entries)

    assert log_ids((await look(harness, granted.info)).logs) == []
