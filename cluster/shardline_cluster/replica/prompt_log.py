"""The log of a prompt's own tokens, with their log-probabilities: a sequence of the record, behind those of the output.

So it is committed, restored, resumed and shown at cursors as every sequence is. It is recorded in one, with the first
token of the output, and ends there.
"""

import math
from collections.abc import Sequence

from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs
from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.request_plan import RequestPlan
from shardline_workers.engine import FinishReason, TokenLogprobs

PROMPT_FINISH = SequenceFinish(FinishReason.LENGTH.value)
UNKNOWN = TokenLogprobs(math.nan)  # of the prompt's first token: nothing stands before it


def wants_scores(request: HeldRequest, plan: RequestPlan) -> bool:
    """Whether the log of the prompt is still to be made."""
    return plan.num_outputs < len(request.sequences) and request.sequences[plan.num_outputs].finish is None


def needs_no_more(request: HeldRequest, plan: RequestPlan) -> bool:
    """Whether that log lacks its finish only (a hold forbade it), or comes too late: nothing is computed any more."""
    if not wants_scores(request, plan):
        return False
    is_whole = request.sequences[plan.num_outputs].num_tokens == len(plan.prompt_ids)
    return is_whole or all(sequence.finish for sequence in request.sequences[: plan.num_outputs])


def prompt_log(request: HeldRequest, plan: RequestPlan, scores: Sequence[TokenLogprobs]) -> tuple[bytes, bytes]:
    """Ids and log-probabilities that the log lacks, packed; `scores` are those of the prompt's second token and on."""
    num_known, num_logprobs = request.sequences[plan.num_outputs].num_tokens, request.info.submission.num_logprobs
    assert num_logprobs is not None, "a record whose prompt is scored keeps log-probabilities"
    ids = plan.prompt_ids[num_known:]
    told = (UNKNOWN, *scores)[num_known:]
    packed = (
        pack_logprobs(token_id, told_of.chosen, told_of.top_ids, told_of.top, num_logprobs=num_logprobs)
        for token_id, told_of in zip(ids, told, strict=True)
    )
    return pack_ids(ids), b"".join(packed)
