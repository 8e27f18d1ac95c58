"""A call is sent until it is answered, with pauses that grow to a bound."""

import asyncio

import pytest

from shardline_cluster.errors import InvalidCallError, QueueUnavailableError
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.queue_calls import until_answered
from tests.cluster.replica.virtual_time import run_virtually

TERMS = QueueTerms()


class Queue:
    """Answers at some attempt; keeps the instants of all."""

    def __init__(self, answers_at: int) -> None:
        self._answers_at = answers_at
        self.instants: list[float] = []

    async def send(self) -> str:
        self.instants.append(asyncio.get_running_loop().time())
        if len(self.instants) < self._answers_at:
            raise QueueUnavailableError("no answer")
        return "answer"


def test_it_is_sent_again_until_it_is_answered_and_pauses_grow_to_the_bound() -> None:
    async def test() -> None:
        queue = Queue(answers_at=20)

        answer = await until_answered(queue.send, what="a claim", terms=TERMS)

        pauses = [b - a for a, b in zip(queue.instants, queue.instants[1:], strict=False)]
        assert answer == "answer"
        assert len(queue.instants) == 20
        assert pauses[0] <= 0.02
        assert TERMS.reconnect_ms / 2000 <= max(pauses) <= TERMS.reconnect_ms / 1000

    run_virtually(test())


def test_an_error_that_no_resend_can_cure_is_raised_at_once() -> None:
    async def test() -> None:
        async def send() -> None:
            raise InvalidCallError("half an id")

        with pytest.raises(InvalidCallError):
            await until_answered(send, what="a commit", terms=TERMS)

    run_virtually(test())
