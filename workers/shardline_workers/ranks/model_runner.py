"""What one rank does in a step: the plan's tensors, the model, the sampler."""

from contextlib import nullcontext

import torch
from torch import Tensor

from shardline_workers.engine import ExpertLoads, Sampling
from shardline_workers.kernels.kernels import Kernels, RunTimes
from shardline_workers.kernels.operations import Operations
from shardline_workers.models.decoder import Decoder
from shardline_workers.models.sharded_logits import ShardedLogits
from shardline_workers.ranks.expert_tally import ExpertTally
from shardline_workers.ranks.input_tensors import InputTensors
from shardline_workers.ranks.sampler import Sampler
from shardline_workers.ranks.state_checksum import StateChecksum
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits
from shardline_workers.scheduling.step_plan import SampledToken, SlotChunk, SlotPlan, SlotStart


class ProbeFailedError(RuntimeError):
    """The device answers, but with numbers that no healthy model gives."""


class ModelRunner:
    """Runs step plans in order.

    The decoder's KV cache holds the scheduler's blocks and one more for tokens that belong to nobody; these have a slot
    of their own, too.
    """

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
        self._probe_slot = limits.max_num_seqs
        self._inputs = InputTensors(
            max_tokens=limits.max_num_batched_tokens,
            max_seqs=limits.max_num_seqs + 1,
            max_sampled=limits.max_sampled_rows,
            max_blocks=limits.max_blocks_per_seq,
            block_size=limits.block_size,
            device=device,
        )
        sharded = decoder.logits
        self._sampler = (
            None if sharded is None else self._new_sampler(sharded, max_logprobs=max_logprobs, device=device)
        )
        counts = decoder.expert_counts
        self._experts = None if counts is None else ExpertTally(counts, decoder.share)
        self._chooses = sharded is not None and sharded.logits is not None

        def step_calls(operations: Operations) -> None:
            decoder.forward(operations, self._inputs.step)
            if sharded is not None and self._sampler is not None:
                self._sampler.choose(operations, sharded, self._inputs.step)

        self._program = kernels.record(step_calls)

    def _new_sampler(self, sharded: ShardedLogits, *, max_logprobs: int, device: torch.device) -> Sampler:
        limits = self._limits
        return Sampler(
            max_seqs=limits.max_num_seqs + 1,
            max_sampled=limits.max_sampled_rows,
            max_logprobs=max_logprobs,
            max_model_len=limits.max_model_len,
            vocab_size=sharded.vocab_size,
            num_ranks=sharded.ranks.place.num_ranks,
            device=device,
        )

    @property
    def logits(self) -> Tensor:
        """[max_sampled, vocab] of the last step, in order of the plan's rows; the next step overwrites it.

        Only of the rank that chooses. Where ranks share the vocabulary, rows have what their choice needed.
        """
        logits = self._decoder.activations.logits
        assert logits is not None, "this rank chooses"
        return logits

    def execute(self, plan: SlotPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        """Computes a step on so many threads; one answer for each row of logits, in the plan's order.

        Ranks that do not choose have no answers. A plan without chunks computes a token that belongs to nobody: all
        data-parallel groups step together, since experts exchange rows between them.

        Raises:
            CommunicatorError: another rank was lost, or is late.
        """
        if not plan.chunks:
            return self._execute_nobodys(self._nobodys_plan(1, samples=False), num_threads=num_threads)
        return self._execute(plan, num_threads=num_threads)

    def expert_loads(self) -> ExpertLoads | None:
        """After each step: what experts took since they were told, where it is time to tell it."""
        return None if self._experts is None else self._experts.report()

    def _execute_nobodys(self, plan: SlotPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        with nullcontext() if self._experts is None else self._experts.uncounted():
            return self._execute(plan, num_threads=num_threads)

    def _execute(self, plan: SlotPlan, *, num_threads: int) -> tuple[list[SampledToken], RunTimes]:
        inputs, sampler = self._inputs, self._sampler
        inputs.write(plan)
        if sampler is not None:
            sampler.write(plan, inputs.header)
        inputs.upload()
        if sampler is not None:
            sampler.upload()
        waited_s = self._decoder.waited_s
        times = self._program.run(num_threads)
        times = RunTimes(times.wall_s, self._decoder.waited_s - waited_s)
        return sampler.results() if sampler is not None and self._chooses else [], times

    def state_checksum(self) -> StateChecksum:
        """Of what the plans so far have left here."""
        num_mirrored = self._limits.max_num_seqs
        return StateChecksum(
            block_tables=self._inputs.state_checksum(num_mirrored),
            slots=None if self._sampler is None else self._sampler.state_checksum(num_mirrored),
        )

    def probe(self, num_tokens: int, *, num_threads: int) -> RunTimes:
        """Computes a few tokens that belong to nobody.

        Args:
            num_tokens: at most a block's size and a step's budget.
            num_threads: to compute them on.

        Raises:
            ProbeFailedError: the logits are no numbers, as the rank finds that chooses.
        """
        tokens, times = self._execute_nobodys(self._nobodys_plan(num_tokens, samples=True), num_threads=num_threads)
        for token in tokens:
            if token.error is not None:
                raise ProbeFailedError(f"a probe of {num_tokens} tokens failed: {token.error}")
        return times

    def _nobodys_plan(self, num_tokens: int, *, samples: bool) -> SlotPlan:
        slot = self._probe_slot
        chunk = SlotChunk(
            slot=slot,
            start=0,
            token_ids=(0,) * num_tokens,
            first_new_block=0,
            new_block_ids=(self._probe_block,),
            samples=samples,
        )
        start = SlotStart(slot=slot, sequence=0, sampling=Sampling(temperature=0.0))
        return SlotPlan(starts=(start,), chunks=(chunk,))
