"""What one rank does in a step: the plan's tensors, the model, the sampler."""

import torch
from torch import Tensor

from shardline_workers.engine import Sampling
from shardline_workers.kernels.kernels import Kernels, RunTimes
from shardline_workers.kernels.operations import Operations
from shardline_workers.models.decoder import Decoder
from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.ranks.sampler import Sampler
from shardline_workers.scheduling.request import SequenceKey
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, ScheduledChunk, SlotStart, StepPlan


class ProbeFailedError(RuntimeError):
    """The device answers, but with numbers that no healthy model gives."""


class ModelRunner:
    """Runs step plans in order. The decoder's KV cache holds the scheduler's blocks and one more for probes."""

    def __init__(
        self,
        decoder: Decoder,
        kernels: Kernels,
        *,
        limits: SchedulerLimits,
        max_logprobs: int,
        device: torch.device,
    ) -> None:
        self._decoder = decoder
        self._limits = limits
        self._probe_block = limits.num_blocks
        self._inputs = InputTensors(
            max_tokens=limits.max_num_batched_tokens,
            max_seqs=limits.max_num_seqs,
            max_sampled=limits.max_sampled_rows,
            max_blocks=-(-limits.max_model_len // limits.block_size),
            block_size=limits.block_size,
            device=device,
        )
        self._sampler = Sampler(
            max_seqs=limits.max_num_seqs,
            max_sampled=limits.max_sampled_rows,
            max_logprobs=max_logprobs,
            max_model_len=limits.max_model_len,
            vocab_size=decoder.shape.vocab_size,
            device=device,
        )

        def step_calls(operations: Operations) -> None:
            decoder.forward(operations, self._inputs.step)
            if (logits := decoder.activations.logits) is not None:
                self._sampler.choose(operations, logits, self._inputs.step)

        self._program = kernels.record(step_calls)

    @property
    def logits(self) -> Tensor:
        """[max_sampled, vocab] of the last step, in order of the plan's rows; the next step overwrites it."""
        logits = self._decoder.activations.logits
        assert logits is not None, "the last stage has logits"
        return logits

    def execute(self, plan: StepPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        """Computes a step on so many threads; one answer for each row of logits, in the plan's order."""
        self._inputs.write(plan)
        self._sampler.write(plan, self._inputs.header)
        self._inputs.upload()
        self._sampler.upload()
        times = self._program.run(num_threads)
        return self._sampler.results(), times

    def probe(self, num_tokens: int, *, num_threads: int) -> RunTimes:
        """Computes a few tokens in a block of its own. Only while no sequence runs: it borrows slot 0.

        Args:
            num_tokens: at most a block's size and a step's budget.
            num_threads: to compute them on.

        Raises:
            ProbeFailedError: the logits are no numbers.
        """
        key = SequenceKey("probe", 0)
        chunk = ScheduledChunk(
            key=key,
            arrival=0,
            slot=0,
            start=0,
            token_ids=(0,) * num_tokens,
            first_new_block=0,
            new_block_ids=(self._probe_block,),
            samples=True,
        )
        start = SlotStart(slot=0, sequence=0, sampling=Sampling(temperature=0.0))
        plan = StepPlan(starts=(start,), chunks=(chunk,), num_prefill_tokens=num_tokens)
        (token,), times = self.execute(plan, num_threads=num_threads)
        if token.error is not None:
            raise ProbeFailedError(f"a probe of {num_tokens} tokens failed: {token.error}")
        return times
