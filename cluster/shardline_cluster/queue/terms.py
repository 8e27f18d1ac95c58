"""The periods on which routers, leaders and the queue's scripts rely, checked against each other at birth."""

from dataclasses import dataclass

from shardline_cluster.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTerms:
    """Periods of the token log's protocol in milliseconds; docs/protocol.md says why each is as it is."""

    lease_ms: int = 6_000  # a leader or router that is silent for longer is taken for dead
    heartbeat_ms: int = 2_000  # longest pause between two commits of a leader
    hold_ms: int = 6_000  # after the server may have forgotten: time for everyone to restore
    sweep_ms: int = 1_000  # period of each router's sweep, with jitter
    call_timeout_ms: int = 1_000  # a call without an answer is sent again
    reconnect_ms: int = 1_500  # longest back-off between two tries to connect
    grace_ms: int = 30_000  # a client that is gone may come back within this
    retention_ms: int = 600_000  # how long an ended request is kept
    unstored_ms: int = 60_000  # the same where store=false and nobody has read the end
    max_queue_ms: int = 3_600_000  # longest wait in the queue
    silence_ms: int = 2_000  # a stream to which nothing was delivered for so long is read again
    lost_window_ms: int = 2_000  # the last writes that the durability setting can lose (AOF everysec)
    max_crashes: int = 3  # counted crashes until a request has FAILED
    max_fruitless_claims: int = 16  # claims in a row without a new token until a request has FAILED

    def __post_init__(self) -> None:
        if self.hold_ms < self.reconnect_ms + 3 * self.call_timeout_ms:
            raise ConfigurationError(
                f"hold_ms is {self.hold_ms}, but must be at least reconnect_ms + 3 × call_timeout_ms = "
                f"{self.reconnect_ms + 3 * self.call_timeout_ms}: otherwise a hold ends before everyone has restored"
            )
        if self.lease_ms < 2 * (2 * self.sweep_ms + self.call_timeout_ms):
            raise ConfigurationError(
                f"lease_ms is {self.lease_ms}, but must be at least 2 × (2 × sweep_ms + call_timeout_ms) = "
                f"{2 * (2 * self.sweep_ms + self.call_timeout_ms)}: otherwise one lost call robs a healthy leader"
            )

    @property
    def lately_ms(self) -> int:
        """How long routers and leaders remember ends and deliveries that the server may yet forget."""
        return max(2 * self.lost_window_ms, self.hold_ms)

    @classmethod
    def short(cls) -> "QueueTerms":
        """Terms with which end-to-end tests do not wait long."""
        return cls(
            lease_ms=2_000,
            heartbeat_ms=500,
            hold_ms=2_000,
            sweep_ms=300,
            call_timeout_ms=300,
            reconnect_ms=500,
            silence_ms=1_000,
        )
