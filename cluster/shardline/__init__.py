"""The light client of a Shardline cluster: grpcio and protobuf only.

`Client` for plain programs, `AsyncClient` for those with an event loop. Both know several routers, draw an idempotency
key for each call, and resume a stream at its exact token when a router goes away.
"""

from shardline.async_client import AsyncClient
from shardline.async_completion_stream import AsyncCompletionStream
from shardline.client import Client
from shardline.completion_stream import CompletionStream
from shardline.requests import ChatMessage
from shardline.results import (
    Accepted,
    CancelResult,
    Completion,
    EndpointHealth,
    Event,
    Finished,
    FinishReason,
    ModelInfo,
    PromptTokens,
    Queued,
    RequestState,
    RequestStatus,
    SequenceEnd,
    SequenceOutput,
    Started,
    Tokenization,
    TokenLogprobs,
    Tokens,
    TopLogprob,
    Usage,
)
from shardline.retries import OnRetry, Retry
from shardline.tls_options import TlsOptions

__all__ = [
    "Accepted",
    "AsyncClient",
    "AsyncCompletionStream",
    "CancelResult",
    "ChatMessage",
    "Client",
    "Completion",
    "CompletionStream",
    "EndpointHealth",
    "Event",
    "FinishReason",
    "Finished",
    "ModelInfo",
    "OnRetry",
    "PromptTokens",
    "Queued",
    "RequestState",
    "RequestStatus",
    "Retry",
    "SequenceEnd",
    "SequenceOutput",
    "Started",
    "TlsOptions",
    "TokenLogprobs",
    "Tokenization",
    "Tokens",
    "TopLogprob",
    "Usage",
]
