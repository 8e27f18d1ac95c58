"""Each answer to an entry of a commit has one meaning."""

import pytest

from shardline_cluster.queue.answers import CommitCode
from shardline_cluster.replica.commit_verdict import Verdict, verdict
from tests.cluster.replica.queue_replies import result


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (CommitCode.OK, Verdict.TAKEN),
        (CommitCode.HELD, Verdict.WAIT),
        (CommitCode.BEHIND, Verdict.RESEND),
        (CommitCode.ENDED, Verdict.ENDED),
        (CommitCode.CONFLICT, Verdict.RELEASE),
    ],
)
@pytest.mark.parametrize("in_hold", [False, True])
def test_what_does_not_depend_on_the_server(code: CommitCode, meaning: Verdict, in_hold: bool) -> None:
    for seen in (False, True):
        assert verdict(result("a", code), epoch=1, in_hold=in_hold, seen=seen) is meaning


@pytest.mark.parametrize(("seen", "meaning"), [(True, Verdict.RAN_OUT), (False, Verdict.ADOPT)])
def test_gone_is_restored_unless_this_server_knew_it(seen: bool, meaning: Verdict) -> None:
    for in_hold in (False, True):
        assert verdict(result("a", CommitCode.GONE), epoch=1, in_hold=in_hold, seen=seen) is meaning


@pytest.mark.parametrize(
    ("in_hold", "own_epoch", "meaning"),
    [
        (True, 3, Verdict.ADOPT),
        (True, 2, Verdict.FENCED),
        (True, 1, Verdict.FENCED),
        (False, 3, Verdict.FENCED),
    ],
)
def test_fenced_is_adopted_only_in_a_hold_and_with_the_higher_epoch(
    in_hold: bool, own_epoch: int, meaning: Verdict
) -> None:
    fenced = result("a", CommitCode.FENCED, epoch=2)

    assert verdict(fenced, epoch=own_epoch, in_hold=in_hold, seen=False) is meaning
