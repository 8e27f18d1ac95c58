"""A start resends a call that got no answer, and says in the end why none came."""

import pytest

from shardline_cluster.errors import ConfigurationError, QueueUnavailableError
from shardline_cluster.serve.answered_call import answered_within


class _Server:
    """Fails so many times before it answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error


async def test_a_call_without_an_answer_is_sent_again() -> None:
    server = _Server(2, QueueUnavailableError("busy"))

    await answered_within(server, within_s=60)

    assert server.calls == 3


async def test_when_time_is_up_the_last_error_says_why() -> None:
    with pytest.raises(QueueUnavailableError, match="busy"):
        await answered_within(_Server(10, QueueUnavailableError("busy")), within_s=0)


async def test_what_a_retry_would_not_help_is_raised_at_once() -> None:
    server = _Server(10, ConfigurationError("wrong"))

    with pytest.raises(ConfigurationError, match="wrong"):
        await answered_within(server, within_s=60)

    assert server.calls == 1
