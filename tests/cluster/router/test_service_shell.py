"""A stream ends when its caller is shut out, also where he does not read; its generator is closed in any case."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
import pytest

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.errors import ShardlineError, UnauthenticatedError
from shardline_cluster.router.service_shell import ServiceShell


class _AbortedError(Exception):
    pass


class _Call:
    """What gRPC is to a servicer, of a client that reads, or does not."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.written: list[int] = []
        self.is_writing = asyncio.Event()
        self.ended: tuple[grpc.StatusCode, str] | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    def time_remaining(self) -> None:
        return None

    def done(self) -> bool:
        return self.ended is not None

    async def write(self, event: int) -> None:
        self.is_writing.set()
        if not self.reads:
            await asyncio.Event().wait()
        self.written.append(event)

    async def abort(self, code: grpc.StatusCode, details: str, _trailing: Any = ()) -> NoReturn:
        self.ended = (code, details)
        raise _AbortedError


class _Gate:
    """Lets everybody in, and shuts him out when told."""

    def __init__(self) -> None:
        self.shut_out: asyncio.Future[ShardlineError] = asyncio.get_running_loop().create_future()
        self.is_watched = False

    def admit(self, _metadata: object, *, time_remaining_s: float | None) -> Caller:
        return Caller(key_id="k", scopes=frozenset(Scope), time_remaining_s=time_remaining_s)

    @contextmanager
    def watch(self, _caller: Caller) -> "Iterator[asyncio.Future[ShardlineError]]":
        self.is_watched = True
        try:
            yield self.shut_out
        finally:
            self.is_watched = False


class _Source:
    """Events without an end, or none at all; tells when it was closed."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.is_silent = is_silent
        self.is_waiting = asyncio.Event()
        self.is_closed = False

    async def __call__(self, _caller: Caller) -> AsyncGenerator[int, None]:
        try:
            number = 0
            while True:
                self.is_waiting.set()
                await (asyncio.Event().wait() if self.is_silent else asyncio.sleep(0))
                yield number
                number += 1
        finally:
            self.is_closed = True


async def _shut_out(gate: _Gate, call: Any, source: _Source, busy: asyncio.Event) -> None:
    """Streams until it is busy, then ends the key."""
    streaming = asyncio.ensure_future(ServiceShell(gate).stream(call, Scope.GENERATE, source))
    await busy.wait()
    gate.shut_out.set_result(UnauthenticatedError("the key k was revoked"))
    with pytest.raises(_AbortedError):
        await streaming


@pytest.mark.parametrize("reads", [True, False])
async def test_a_caller_who_is_shut_out_is_told_so_whether_he_reads_or_not(reads: bool) -> None:
    gate, call, source = _Gate(), _Call(reads=reads), _Source()

    await _shut_out(gate, call, source, call.is_writing)

    assert call.ended == (grpc.StatusCode.UNAUTHENTICATED, "the key k was revoked")
    assert source.is_closed
    assert not gate.is_watched


async def test_a_caller_who_is_shut_out_gets_no_answer_that_takes_long() -> None:
    gate, call, source = _Gate(), _Call(reads=True), _Source(is_silent=True)

    async def never(caller: Caller) -> int:
        return await anext(source(caller))

    answering = asyncio.ensure_future(ServiceShell(gate).answer(cast("Any", call), Scope.GENERATE, never))
    await source.is_waiting.wait()
    gate.shut_out.set_result(UnauthenticatedError("the key k was revoked"))

    with pytest.raises(_AbortedError):
        await answering
    assert call.ended == (grpc.StatusCode.UNAUTHENTICATED, "the key k was revoked")
    assert source.is_closed


async def test_an_answer_that_shuts_its_caller_out_is_given() -> None:
    gate, call = _Gate(), _Call(reads=True)

    async def revoking(_caller: Caller) -> int:
        gate.shut_out.set_result(UnauthenticatedError("the key k was revoked"))
        return 7

    assert await ServiceShell(gate).answer(cast("Any", call), Scope.ADMIN, revoking) == 7
    assert call.ended is None


async def test_a_caller_to_whom_nothing_happens_is_told_so() -> None:
    gate, call, source = _Gate(), _Call(reads=True), _Source(is_silent=True)

    await _shut_out(gate, call, source, source.is_waiting)

    assert call.ended == (grpc.StatusCode.UNAUTHENTICATED, "the key k was revoked")
    assert call.written == []
    assert source.is_closed


class _LeavingCall(_Call):
    """A client who goes: gRPC fails the write that is on its way, and cancels the call in the same moment."""

    def __init__(self) -> None:
        super().__init__(reads=True)
        self.streaming: asyncio.Future[None] | None = None

    async def write(self, event: int) -> None:
        assert self.streaming is not None
        self.streaming.cancel()
        raise RuntimeError(f"nobody reads event {event}")


async def test_a_client_who_goes_while_an_event_is_written_leaves_no_error_that_nobody_looked_at() -> None:
    call, source, complaints = _LeavingCall(), _Source(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))

    call.streaming = asyncio.ensure_future(ServiceShell(_Gate()).stream(cast("Any", call), Scope.GENERATE, source))
    await asyncio.wait({call.streaming})
    call.streaming = None
    gc.collect()  # asyncio complains when it drops a task whose error nobody asked for

    assert source.is_closed
    assert complaints == []
