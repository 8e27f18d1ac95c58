"""What a tenant's ended requests have used in a lane. Each is counted once, by the script that writes its end."""

from dataclasses import dataclass, replace
from typing import Self

from shardline_cluster.queue.records import RequestEnd, RequestState, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantUsage:
    """Counters since the lane was made. Tokens of a prompt count whether they were computed or found in a cache."""

    tenant: str
    requests_done: int = 0
    requests_cancelled: int = 0
    requests_expired: int = 0
    requests_failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0  # of all outputs, up to the request's end

    def with_end(self, submission: Submission, end: RequestEnd) -> Self:
        """The same and one more ended request."""
        counter = counter_of(end.state)
        return replace(
            self,
            **{counter: getattr(self, counter) + 1},
            prompt_tokens=self.prompt_tokens + submission.prompt_tokens,
            completion_tokens=self.completion_tokens + completion_tokens(submission, end),
        )


def counter_of(state: RequestState) -> str:
    """The counter of requests that ended so."""
    return f"requests_{state.value.lower()}"


def completion_tokens(submission: Submission, end: RequestEnd) -> int:
    """Tokens of a request's outputs, without the prompt's own log."""
    return sum(end.offsets[: num_outputs(submission)])


def num_outputs(submission: Submission) -> int:
    """Sequences that a client asked for."""
    return submission.num_sequences - submission.has_prompt_log
