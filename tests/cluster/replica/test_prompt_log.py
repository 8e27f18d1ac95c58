"""When the log of a prompt's own tokens is made, and what it lacks."""

import dataclasses
import math

from shardline_cluster.queue.log_encoding import pack_ids, pack_logprobs, unpack_ids, unpack_logprobs
from shardline_cluster.queue.records import SequenceFinish, SequenceLog
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.prompt_log import PROMPT_FINISH, needs_no_more, prompt_log, wants_scores
from shardline_cluster.replica.request_plan import RequestPlan
from shardline_workers.engine import Sampling, TokenLogprobs
from tests.cluster.replica.queue_replies import granted

PLAN = RequestPlan(
    prompt_ids=(7, 8, 9), sampling=Sampling(), num_outputs=1, stops=(), include_stop=False, skip_special=True
)
SCORES = (TokenLogprobs(-1.5, (8,), (-1.5,)), TokenLogprobs(-2.5, (4,), (-0.5,)))
OPEN, DONE = SequenceLog(), SequenceLog(pack_ids((1,)), finish=SequenceFinish("stop"))


def _held(*logs: SequenceLog) -> HeldRequest:
    request = granted("a", *((),) * len(logs), num_logprobs=1)
    return HeldRequest.of(dataclasses.replace(request, logs=logs), seen="server-1")


def test_scores_are_wanted_until_the_log_has_its_finish() -> None:
    assert wants_scores(_held(OPEN, OPEN), PLAN)
    assert not wants_scores(_held(OPEN, SequenceLog(finish=PROMPT_FINISH)), PLAN)
    assert not wants_scores(_held(OPEN), PLAN)


def test_a_log_that_lacks_its_finish_only_or_that_nobody_can_make_any_more_needs_no_scores() -> None:
    whole = SequenceLog(pack_ids(PLAN.prompt_ids), pack_logprobs(7, 0, (), (), num_logprobs=1) * 3)

    assert needs_no_more(_held(OPEN, whole), PLAN)
    assert needs_no_more(_held(DONE, OPEN), PLAN)
    assert not needs_no_more(_held(OPEN, OPEN), PLAN)
    assert not needs_no_more(_held(OPEN, SequenceLog(finish=PROMPT_FINISH)), PLAN)


def test_only_what_the_log_lacks_is_added_and_the_first_token_has_no_log_probability() -> None:
    part = SequenceLog(pack_ids((7, 8)), pack_logprobs(7, 0, (), (), num_logprobs=1) * 2)

    ids, logprobs = prompt_log(_held(OPEN, OPEN), PLAN, SCORES)
    rest_ids, rest_logprobs = prompt_log(_held(OPEN, part), PLAN, SCORES)

    first, second, third = unpack_logprobs(logprobs, 1)
    assert (unpack_ids(ids), unpack_ids(rest_ids)) == ((7, 8, 9), (9,))
    assert (math.isnan(first.chosen), first.top_ids) == (True, ())
    assert (second.chosen, second.top_ids, second.top) == (-1.5, (8,), (-1.5,))
    assert unpack_logprobs(rest_logprobs, 1) == (third,)
