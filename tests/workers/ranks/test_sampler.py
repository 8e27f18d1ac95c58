import dataclasses

import pytest
import torch
from torch import Tensor

from shardline_workers.engine import Sampling
from shardline_workers.kernels.reference_operations import ReferenceOperations
from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.ranks.sampler import Sampler
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, SlotStart, StepPlan
from tests.workers.ranks.unshared_logits import unshared

VOCAB = 200
MAX_SEQS = 8
GREEDY = Sampling(temperature=0.0)
DRAWN = Sampling(temperature=1.0, seed=9)
CPU = torch.device("cpu")


def sample(
    logits: Tensor, samplings: list[Sampling], *, position: int = 4, sequence: int = 0, chunk_tokens: int = 1
) -> list[SampledToken]:
    """Chooses for rows of logits at once, each the end of a chunk whose next token has this position."""
    inputs = InputTensors(
        max_tokens=MAX_SEQS, max_seqs=MAX_SEQS, max_sampled=MAX_SEQS, max_blocks=8, block_size=2, device=CPU
    )
    sampler = Sampler(
        max_seqs=MAX_SEQS,
        max_sampled=MAX_SEQS,
        max_logprobs=5,
        max_model_len=64,
        vocab_size=VOCAB,
        num_ranks=1,
        device=CPU,
    )
    plan = StepPlan(
        starts=tuple(
            SlotStart(slot=slot, sequence=sequence, sampling=sampling) for slot, sampling in enumerate(samplings)
        ),
        chunks=tuple(
            ScheduledChunk(
                key=SequenceKey(f"r{slot}", sequence),
                arrival=slot,
                slot=slot,
                start=position - chunk_tokens,
                token_ids=(0,) * chunk_tokens,
                first_new_block=0,
                new_block_ids=(),
                samples=True,
            )
            for slot in range(len(samplings))
        ),
    )
    padded = torch.full((MAX_SEQS, logits.shape[1]), float("nan"))
    padded[: len(samplings)] = logits
    inputs.write(plan)
    sampler.write(plan, inputs.header)
    inputs.upload()
    sampler.upload()
    sampler.choose(ReferenceOperations(), unshared(padded), inputs.step)
    return sampler.results()


def logits_of(*seeds: int) -> Tensor:
    return torch.stack([torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def test_a_mixed_batch_gives_each_row_what_it_gets_alone() -> None:
    samplings = [
        GREEDY,
        DRAWN,
        dataclasses.replace(DRAWN, top_k=5),
        dataclasses.replace(DRAWN, temperature=3.0, min_p=0.1),
        dataclasses.replace(GREEDY, num_logprobs=2),
        dataclasses.replace(DRAWN, top_p=0.4, num_logprobs=0),
    ]
    logits = logits_of(*range(6))

    together = sample(logits, samplings)

    alone = [sample(logits[row : row + 1], [sampling])[0] for row, sampling in enumerate(samplings)]
    assert together == alone


def test_a_choice_depends_on_seed_sequence_and_position() -> None:
    logits = torch.zeros(1, VOCAB)

    choices = [
        sample(logits, [DRAWN]),
        sample(logits, [dataclasses.replace(DRAWN, seed=10)]),
        sample(logits, [DRAWN], position=5),
        sample(logits, [DRAWN], sequence=1),
    ]

    assert len({token.token_id for (token,) in choices}) == 4


def test_chunks_do_not_matter_only_the_position_of_the_new_token_does() -> None:
    alone = sample(torch.zeros(1, VOCAB), [DRAWN], position=7)
    at_the_end_of_its_prompt = sample(torch.zeros(1, VOCAB), [DRAWN], position=7, chunk_tokens=7)

    assert alone == at_the_end_of_its_prompt


def test_top_k_of_one_is_greedy() -> None:
    logits = logits_of(1)

    (token,) = sample(logits, [dataclasses.replace(DRAWN, temperature=5.0, top_k=1)])

    assert token.token_id == int(logits.argmax())


def test_nan_is_an_error_of_its_row_only() -> None:
    logits = logits_of(1, 2, 3)
    logits[1, 17] = float("nan")

    tokens = sample(logits, [GREEDY, dataclasses.replace(DRAWN, num_logprobs=2), DRAWN])

    assert [token.error is None for token in tokens] == [True, False, True]
    assert "NaN" in (tokens[1].error or "")
    assert tokens[1].logprobs is None


def test_logprobs_come_in_the_number_that_was_asked_for() -> None:
    logits = logits_of(1, 2, 3)
    asked = [dataclasses.replace(GREEDY, num_logprobs=number) for number in (0, 3)]

    none, zero, three = sample(logits, [GREEDY, *asked])

    assert none.logprobs is None
    assert zero.logprobs is not None
    assert three.logprobs is not None
    expected = logits.double().log_softmax(dim=-1)
    assert zero.logprobs.top_ids == ()
    assert zero.logprobs.chosen == pytest.approx(expected[1].max().item())
    assert three.logprobs.top_ids == tuple(expected[2].topk(3).indices.tolist())
    assert three.logprobs.top == pytest.approx(expected[2].topk(3).values.tolist())


def test_logprobs_ignore_temperature_and_cuts() -> None:
    logits = logits_of(1)
    hot = dataclasses.replace(DRAWN, temperature=9.0, top_k=1, num_logprobs=1)

    (drawn,) = sample(logits, [hot])
    (greedy,) = sample(logits, [dataclasses.replace(GREEDY, num_logprobs=1)])

    assert drawn == greedy
