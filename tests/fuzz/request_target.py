"""The way of a request: bytes → message → validation → tokens → submission → record → a leader's plan → its scheduler.

What a router lets in, the record must carry unchanged and a leader's scheduler must take: a refusal behind the router
is a finding, as is any error but those that a router words for its clients.
"""

from dataclasses import replace
from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.queue.answers import GrantedRequest
from shardline_cluster.queue.record_encoding import pack_submission, unpack_submission
from shardline_cluster.queue.records import Grant, RequestInfo, SequenceLog, Submission
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.request_plan import read_plan
from shardline_cluster.router.admission.admission import Admission, submission_of
from shardline_cluster.router.admission.sampling_validation import ModelLimits
from shardline_cluster.router.admission.tokenized_request import tokenized
from shardline_cluster.router.admission.validation import check_against_model, check_request
from shardline_protos import generation_pb2 as pb
from shardline_workers.engine import EngineRequest, SequenceStart
from shardline_workers.ranks.logit_adjustments import check_named_ids
from shardline_workers.scheduling.scheduler import Scheduler
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.text.simulated_text import simulated_text_model
from tests.fuzz.bytes_mutation import mutated
from tests.fuzz.message_mutation import mutate_message
from tests.fuzz.target import FuzzTarget

CONTEXT = 512
_MAX_NUM_SEQS = 16
_TEXT = simulated_text_model(CONTEXT)
_MODELS = (_TEXT, replace(_TEXT, chat_template=None, name="base"))
_LIMITS = ModelLimits(vocab_size=_TEXT.vocab_size, max_model_len=CONTEXT, max_num_seqs=_MAX_NUM_SEQS)


def full_request() -> pb.GenerateRequest:
    """A good request that sets nearly everything."""
    request = pb.GenerateRequest(model="m", text="One, two,", priority=-3, idempotency_key="key", metadata={"a": "b"})
    sampling = request.sampling
    sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p = 0.7, 40, 0.9, 0.05
    sampling.seed, sampling.n, sampling.max_tokens, sampling.min_tokens = 7, 2, 16, 1
    sampling.stop[:], sampling.stop_token_ids[:], sampling.bad_words[:] = ["END"], [5], ["no"]
    sampling.logprobs, sampling.prompt_logprobs, sampling.echo = 2, 1, True
    sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty = 0.1, 0.2, 1.1
    sampling.logit_bias[65] = -5.0
    request.on_disconnect.grace.seconds = 3
    request.timeout.seconds, request.max_queue_time.seconds = 60, 30
    return request


def make_request(random: Random) -> bytes:
    """A good request with some fields changed, sometimes with damaged bytes; now and then mere bytes."""
    if random.random() < 0.03:
        return random.randbytes(random.randrange(200))
    request = full_request()
    match random.randrange(6):
        case 0:
            request.token_ids.ids[:] = [65, 66, 67]
        case 1:
            request.chat.messages.add(role="user", content="Why?")
        case 2:
            request.ClearField("sampling")
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 5))):
        mutate_message(random, request.sampling if random.random() < 0.5 else request)
    content = request.SerializeToString(deterministic=True)
    return mutated(random, content) if random.random() < 0.15 else content


def read_request(content: bytes, _folder: Path) -> None:
    """Takes a request as far as an engine's scheduler, for a model with a chat template and for one without.

    Raises:
        DecodeError, InvalidRequestError: as a router refuses it.
    """
    request = pb.GenerateRequest.FromString(content)
    check_request(request)
    refused: InvalidRequestError | None = None
    for number, model in enumerate(_MODELS):
        try:
            tokens = tokenized(model, request)
            check_against_model(request, len(tokens.prompt_ids), _LIMITS)
        except InvalidRequestError as error:
            assert error.field and error.field in str(error), f"the message does not name its field: {error}"
            refused = error
            continue
        submission = submission_of(request, tokens, _admission(number))
        assert unpack_submission(pack_submission(submission)) == submission, "a record changes on its way"
        _schedule(submission)
    if refused is not None:
        raise refused


def _admission(number: int) -> Admission:
    return Admission(
        model="m",
        lane=f"lane-{number}",
        drawn="server",
        tenant="tenant",
        terms=QueueTerms(),
        max_model_len=CONTEXT,
        defaults=_TEXT.defaults,
        time_remaining_s=2.5 if number else None,
    )


def _schedule(submission: Submission) -> None:
    """As a leader and its engine do it; everything that was taken is given back."""
    info = RequestInfo(submission=submission, submitted_ms=1, deadline_ms=None)
    granted = GrantedRequest(info, Grant(1, b"noncenon"), (SequenceLog(),) * submission.num_sequences, attempts=0)
    plan = read_plan(HeldRequest.of(granted, seen="server"), _TEXT.eos_ids)
    check_named_ids(plan.sampling, vocab_size=_TEXT.vocab_size)  # as our engine does, before its scheduler has it
    scheduler = Scheduler(
        SchedulerLimits(
            max_model_len=CONTEXT, max_num_seqs=_MAX_NUM_SEQS, max_num_batched_tokens=64, num_blocks=64, block_size=16
        )
    )
    before = scheduler.capacity()
    scheduler.add(
        EngineRequest(
            request_id="r",
            prompt_ids=plan.prompt_ids,
            sampling=plan.sampling,
            sequences=(SequenceStart(),) * plan.num_outputs,
        )
    )
    scheduler.schedule()
    scheduler.cancel("r")
    assert scheduler.capacity() == before, "blocks are kept for a request that is gone"


REQUEST = FuzzTarget(name="request", make=make_request, run=read_request, documented=(DecodeError, InvalidRequestError))
