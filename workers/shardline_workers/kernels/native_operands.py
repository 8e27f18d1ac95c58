"""Operands of native operations, made of the buffers that these work on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from shardline_workers.communicator import Communicator
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.native_recording import RecordingPieces
from shardline_workers.kernels.native_weights import Segment, panel_kind
from shardline_workers.kernels.operands import AttentionShape, KvCache, LinearInput, PackedLinear
from shardline_workers.kernels.sampling_buffers import Adjustments, SamplingBuffers


class NativeOperands:
    """Whatever it tells the address of is kept alive by the recording."""

    def __init__(self, pieces: RecordingPieces) -> None:
        self._pieces = pieces

    def choice(self, sampling: SamplingBuffers, logits: Tensor, *, first_id: int | None) -> api.Choice:
        """Of all operations that choose tokens; with a `first_id` logits are one rank's."""
        wide, whole = torch.float64, torch.int64
        return api.Choice(
            logits=self.floats(logits),
            logits_stride=logits.stride(0),
            vocab_size=logits.shape[1],
            num_top=sampling.top_ids.shape[1],
            temperatures=self.address(sampling.temperatures, wide),
            top_ks=self.address(sampling.top_ks, whole),
            top_ps=self.address(sampling.top_ps, wide),
            min_ps=self.address(sampling.min_ps, wide),
            noise_keys=self.address(sampling.noise_keys, whole),
            drawn_rows=self.address(sampling.drawn_rows, whole),
            logprob_rows=self.address(sampling.logprob_rows, whole),
            adjusted_rows=self.address(sampling.adjusted_rows, whole),
            adjusted_slots=self.address(sampling.adjusted_slots, whole),
            repetition_penalties=self.address(sampling.repetition_penalties, wide),
            frequency_penalties=self.address(sampling.frequency_penalties, wide),
            presence_penalties=self.address(sampling.presence_penalties, wide),
            given_rows=self.address(sampling.given_rows, whole),
            given_ids=self.address(sampling.given_ids, whole),
            adjustments=self._adjustments(sampling.adjustments),
            chosen_ids=self.address(sampling.chosen_ids, whole),
            usable=self.address(sampling.usable, torch.bool),
            chosen_logprobs=self.address(sampling.chosen_logprobs, wide),
            top_ids=self.address(sampling.top_ids, whole),
            top_logprobs=self.address(sampling.top_logprobs, wide),
            num_candidates=self.address(sampling.num_candidates, whole),
            first_id=first_id or 0,
            is_part=first_id is not None,
        )

    def gather_logits(
        self,
        logits: Tensor | None,
        rank_logits: Tensor,
        group: Communicator,
        *,
        rank_sizes: Sequence[int],
        num_candidates: Tensor,
    ) -> api.GatherLogits:
        """Of `Operations.gather_logits`, with room for the candidates of all rows."""
        candidates = torch.empty((rank_logits.shape[0], 2 * api.CANDIDATES_MAX), dtype=torch.float32)
        return api.GatherLogits(
            ranks=self.ranks(group),
            x=self.floats(rank_logits),
            x_stride=rank_logits.stride(0),
            out=None if logits is None else self.floats(logits),
            out_stride=0 if logits is None else logits.stride(0),
            num_candidates=self.address(num_candidates, torch.int64),
            candidates=self.floats(candidates),
            rank=group.place.rank,
            num_ranks=group.place.num_ranks,
            rank_sizes=tuple(rank_sizes),
        )

    def exchange(self, values: Tensor, group: Communicator, *, peer: int) -> api.Exchange:
        """Of sums over ranks, for which `peer` means nothing, and of messages."""
        assert values.is_contiguous(), "ranks exchange rows without gaps"
        return api.Exchange(ranks=self.ranks(group), x=self.floats(values), width=values.shape[1], peer=peer)

    def weight(self, segment: Segment, num_inputs: int) -> api.Weight:
        """One segment of a packed matrix."""
        return api.Weight(
            format=segment.format,
            num_outputs=segment.num_outputs,
            num_inputs=num_inputs,
            tiles=self.address(segment.tiles, torch.uint8),
        )

    def panels(self, panels: LinearInput, reader: PackedLinear) -> api.Panels:
        """A buffer of panels, of the kind that its reader wants."""
        return api.Panels(
            kind=panel_kind(reader),
            num_inputs=panels.num_inputs,
            bytes=self.address(panels.rows, torch.uint8),
        )

    def cache(self, cache: KvCache, shape: AttentionShape) -> api.Cache:
        """One layer\'s cache, of this rank\'s heads."""
        return api.Cache(
            blocks=self.address(cache.tensors[0], torch.uint8),
            num_blocks=cache.num_blocks,
            block_size=cache.block_size,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            format=cache.layout[0],
        )

    def ranks(self, group: Communicator) -> int:
        """Where a group that native code calls itself lies."""
        ranks = group.native_ranks
        assert ranks is not None, "the host calls other groups"
        self._pieces.add_group(group)
        return ranks.address

    def floats(self, tensor: Tensor) -> int:
        """Where a float32 buffer lies; see `address`."""
        return self.address(tensor, torch.float32)

    def address(self, tensor: Tensor, dtype: torch.dtype) -> int:
        """Where a buffer lies; from now on it is kept alive."""
        assert tensor.dtype is dtype, f"a buffer is {tensor.dtype}, where native code reads {dtype}"
        assert tensor.stride(-1) == 1, "native code reads rows without gaps"
        self._pieces.keep(tensor)
        return tensor.data_ptr()

    def _adjustments(self, adjustments: Adjustments) -> api.Adjustments:
        return api.Adjustments(
            lengths=self.address(adjustments.lengths, torch.int64),
            ids=self.address(adjustments.ids, torch.int32),
            biases=self.floats(adjustments.biases),
            occurrences=self.address(adjustments.occurrences, torch.int32),
            raw_logits=self.address(adjustments.raw_logits, torch.float64),
            width=adjustments.ids.shape[1],
        )
