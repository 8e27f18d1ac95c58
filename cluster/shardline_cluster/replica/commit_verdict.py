"""What the answer to one entry of a commit means for the leader."""

from enum import Enum

from shardline_cluster.queue.answers import CommitCode, CommitResult


class Verdict(Enum):
    """What to do with a held request after its entry was answered."""

    TAKEN = "everything was taken"
    WAIT = "a hold forbids the end: send it again in a while"
    RESEND = "the log is shorter than believed: send from its end on"
    ENDED = "it has ended"
    ADOPT = "this server forgot the grant: restore it"
    RELEASE = "the log holds other tokens"
    RAN_OUT = "its record ran out"
    FENCED = "another grant owns it"


_PLAIN = {
    CommitCode.OK: Verdict.TAKEN,
    CommitCode.HELD: Verdict.WAIT,
    CommitCode.BEHIND: Verdict.RESEND,
    CommitCode.ENDED: Verdict.ENDED,
    CommitCode.CONFLICT: Verdict.RELEASE,  # under this very grant: a router restored late
}


def verdict(result: CommitResult, *, epoch: int, in_hold: bool, seen: bool) -> Verdict:
    """Judges one result.

    `epoch` is that of the own grant, `seen` whether this same server has shown before that it knows the request: then
    a record that is gone was not forgotten but has run out.
    """
    if result.code is CommitCode.GONE:
        return Verdict.RAN_OUT if seen else Verdict.ADOPT
    if result.code is CommitCode.FENCED:
        return Verdict.ADOPT if in_hold and epoch > result.epoch else Verdict.FENCED
    return _PLAIN[result.code]
