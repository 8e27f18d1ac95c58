"""What every gRPC service of a router does around its work: lets callers in, turns ShardlineErrors into statuses."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio

from shardline_cluster.access.api_key import Scope
from shardline_cluster.access.caller import Caller
from shardline_cluster.access.gate import AUTHORIZATION, Gate
from shardline_cluster.errors import PermissionDeniedError, ShardlineError, UnauthenticatedError
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.status_details import status_message, status_metadata
from shardline_cluster.telemetry.tracing import checked_traceparent

log = logging.getLogger(__name__)

R = TypeVar("R")
Context = grpc.aio.ServicerContext[Any, Any]


class ServiceShell:
    """One for all services of a router. Work gets the caller, and knows nothing of gRPC."""

    def __init__(self, gate: Gate, telemetry: RouterTelemetry | None = None) -> None:
        self._gate = gate
        self._metrics = (telemetry or RouterTelemetry()).metrics

    async def answer(self, context: Context, scope: Scope, work: Callable[[Caller], Awaitable[R]]) -> R:
        """The answer of a call, or its abort. A caller who is shut out meanwhile gets none: it may take minutes."""
        try:
            caller = self.caller(context, scope)
            with self._gate.watch(caller) as shut_out:
                return await _unless(shut_out, work(caller))
        except ShardlineError as error:
            self._metrics.failed(error)
            await _abort(context, error)
        except Exception as error:
            self._metrics.failed(error)
            await _abort_unexpected(context, error)

    async def stream(self, context: Context, scope: Scope, events: Callable[[Caller], AsyncGenerator[R, None]]) -> None:
        """Writes as fast as the client reads: the next event is asked for when the last one is on its way.

        A caller whose key is revoked or expires in between gets an UNAUTHENTICATED end at once.
        """
        try:
            caller = self.caller(context, scope)
            with self._gate.watch(caller) as shut_out:
                await _unless(shut_out, _write_all(events(caller), context))
        except ShardlineError as error:
            self._metrics.failed(error)
            await _abort(context, error)
        except Exception as error:
            if not context.done():  # else the client was gone while an event was written
                self._metrics.failed(error)
                await _abort_unexpected(context, error)

    def told(self, error: Exception) -> None:
        """Counts an error that is told within an answer, after which the call goes on."""
        self._metrics.failed(error)

    def caller(self, context: Context, scope: Scope) -> Caller:
        """Who calls, as of now. A call that takes several requests asks for each: limits and scopes change meanwhile.

        Raises:
            UnauthenticatedError: he shows no good key where one is needed.
            PermissionDeniedError: his key lacks the scope.
            QueueUnavailableError: the keys are not known yet.
        """
        metadata = _metadata_of(context)
        caller = self._gate.admit(metadata, time_remaining_s=context.time_remaining())
        if scope not in caller.scopes:
            who = f"the key {caller.key_id}" if caller.key_id else "a caller without a key"
            raise PermissionDeniedError(
                f"{who} lacks the scope {scope.value!r}, which this call needs: use a key that has it"
            )
        return replace(caller, traceparent=checked_traceparent(metadata.get("traceparent", "")))


def _metadata_of(context: Context) -> Mapping[str, str]:
    """By name. Of a name that comes twice the last counts, but for a key: a proxy may have looked at the first one."""
    told = [(name, value) for name, value in context.invocation_metadata() or () if isinstance(value, str)]
    num_keys = sum(1 for name, _ in told if name == AUTHORIZATION)
    if num_keys > 1:
        raise UnauthenticatedError(f"the metadata `{AUTHORIZATION}` is there {num_keys} times: show one key")
    return dict(told)


async def _write_all(events: AsyncGenerator[R, None], context: Context) -> None:
    async with aclosing(events) as open_events:
        async for event in open_events:
            await context.write(event)


async def _unless(shut_out: "asyncio.Future[ShardlineError]", work: Awaitable[R]) -> R:
    """Does the work, also while a client reads slowly or not at all, unless its caller is shut out before it is done.

    Raises:
        ShardlineError: he has been.
    """
    working = asyncio.ensure_future(work)
    either: set[asyncio.Future[Any]] = {working, shut_out}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise shut_out.result()
        return await working
    finally:
        working.cancel()  # nothing, where it is done
        # Also where it has failed: when a client goes, its write may fail first, and nobody else looks at that error.
        await asyncio.gather(working, return_exceptions=True)


async def _abort(context: Context, error: ShardlineError) -> NoReturn:
    code, message = grpc.StatusCode[error.code], status_message(error)
    await context.abort(code, message, status_metadata(error, code=code.value[0], message=message))
    raise AssertionError("abort does not return")


async def _abort_unexpected(context: Context, error: Exception) -> NoReturn:
    log.error("a call failed unexpectedly", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "the router failed unexpectedly; its log says more")
    raise AssertionError("abort does not return")
