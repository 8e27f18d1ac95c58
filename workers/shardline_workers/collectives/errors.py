"""How a group of ranks fails. After any of these its communicator is of no more use: only `close` is."""


class CommunicatorError(Exception):
    """A group of ranks cannot be made, or is broken; the text says by which rank, with value, bound and remedy."""


class RankLostError(CommunicatorError):
    """Another rank's process died, or it closed its communicator."""


class RankLateError(CommunicatorError):
    """Another rank did not come within the time limit: it hangs, was stopped, or computes for longer than that."""


class RanksDifferError(CommunicatorError):
    """Ranks made different calls at the same place, or the same with other sizes: a fault of ours."""
