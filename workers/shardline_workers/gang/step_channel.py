"""How frames go from one writer to its readers, whichever way they take.

The leader writes and every rank reads; answers take a channel of their own with one reader. Frames arrive whole, in
order, each once; what they mean is none of the channel's business (see `step_encoding`). A frame has 1 to
`MAX_FRAME_BYTES` bytes.

A channel waits for frames as long as it is asked to: a writer with nothing to say is no fault. What is a fault: the
process at the other end is gone, or readers do not take what was sent within the writer's limit. A channel that failed
stays so; only `close` is of use then.
"""

from dataclasses import dataclass
from typing import Protocol

MAX_FRAME_BYTES = 64 * 1024 * 1024  # many times a step that brings 32 new sequences of 128 thousand tokens each


class StepChannelError(Exception):
    """The channel cannot be made, or is broken; the text says which end, with value, bound and remedy."""


class PeerLostError(StepChannelError):
    """The process at the other end is gone, or it closed the channel."""


class PeerLateError(StepChannelError):
    """A reader took nothing for longer than the limit: it hangs, or was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """How long an end waits for the other one, in seconds."""

    join_s: float = 60.0  # for it to come
    wait_s: float = 10.0  # for it to take a frame where there is no more room, or to give the rest of one

    def __post_init__(self) -> None:
        for name in ("join_s", "wait_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a limit must be positive")


def check_frame(frame: bytes) -> None:
    """Passes a frame of a size that can be sent.

    Raises:
        ValueError: it is empty or too large.
    """
    if not 1 <= len(frame) <= MAX_FRAME_BYTES:
        raise ValueError(f"a frame has {len(frame)} bytes; it must have 1 to {MAX_FRAME_BYTES}")


class StepSender(Protocol):
    """The writer's end. One thread sends."""

    def send(self, frame: bytes) -> None:
        """Sends a frame to all readers. Returns before they have read it: the writer may run ahead by several frames.

        Raises:
            PeerLostError: a reader's process is gone.
            PeerLateError: a reader took nothing for longer than the limit, and there was no more room.
        """
        ...

    def close(self) -> None:
        """Ends the channel; readers still get what was sent. May be called twice."""
        ...


class StepReceiver(Protocol):
    """A reader's end. One thread receives."""

    def receive(self, limit_s: float) -> bytes:
        """Waits for the next frame.

        Raises:
            TimeoutError: none came within the limit. The channel is as good as before.
            PeerLostError: all frames were read, and the writer's process is gone.
        """
        ...

    def close(self) -> None:
        """Leaves the channel: the writer's next `send` fails. May be called twice."""
        ...
