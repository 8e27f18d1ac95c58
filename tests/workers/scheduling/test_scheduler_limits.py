import re

import pytest

from shardline_workers.engine import EngineRequest, RequestTooLargeError, Sampling
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits


def limits(*, max_model_len: int = 64, num_blocks: int = 8) -> SchedulerLimits:
    return SchedulerLimits(
        max_model_len=max_model_len, max_num_seqs=2, max_num_batched_tokens=8, num_blocks=num_blocks, block_size=4
    )


def request(prompt: int, max_tokens: int) -> EngineRequest:
    return EngineRequest(request_id="r", prompt_ids=tuple(range(prompt)), sampling=Sampling(max_tokens=max_tokens))


def test_a_request_that_just_fits_passes() -> None:
    limits().check(request(20, 12))


@pytest.mark.parametrize(("max_model_len", "num_blocks", "bound"), [(16, 8, 16), (64, 8, 32)])
def test_a_request_beyond_context_or_cache_is_refused_with_the_bound(
    max_model_len: int, num_blocks: int, bound: int
) -> None:
    bounded = limits(max_model_len=max_model_len, num_blocks=num_blocks)

    with pytest.raises(RequestTooLargeError, match=re.escape(f"make {bound + 1}, more than the {bound}")):
        bounded.check(request(bound, 1))


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        limits().check(request(0, 4))


def test_a_request_that_may_generate_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens is 0"):
        limits().check(request(4, 0))


def test_a_budget_below_the_number_of_sequences_is_refused() -> None:
    with pytest.raises(ValueError, match="raise the first or lower the second"):
        SchedulerLimits(max_model_len=8, max_num_seqs=4, max_num_batched_tokens=3, num_blocks=1, block_size=4)


def test_bounds_below_one_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="num_blocks is 0"):
        limits(num_blocks=0)
