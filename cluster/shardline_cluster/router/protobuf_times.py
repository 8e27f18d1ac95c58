"""Milliseconds, as everything here counts time, in protobuf's messages for it."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def duration_of(ms: int) -> Duration:
    """So long."""
    duration = Duration()
    duration.FromMilliseconds(ms)
    return duration


def timestamp_of(since_1970_ms: int) -> Timestamp:
    """That instant."""
    timestamp = Timestamp()
    timestamp.FromMilliseconds(since_1970_ms)
    return timestamp
