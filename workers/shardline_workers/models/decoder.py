"""The decoder: one rank's layers as one sequence of kernel calls, the same for every step.

residual ─▶ norm ─▶ attention ─▶ (+) norm ─▶ MLP ─▶ (+)

Some families norm what comes to each (+) before it is added. In a pipeline the residual comes from the stage before,
and goes to the stage behind.
"""

from dataclasses import dataclass

from torch import Tensor

from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.kernels.operands import Rows
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers
from shardline_workers.models.activations import Activations
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.decoder_weights import DecoderWeights
from shardline_workers.models.half_layer import HalfLayer
from shardline_workers.models.model_share import ModelShare
from shardline_workers.models.sharded_logits import ShardedLogits


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLayer:
    """Two halves and their norms."""

    attention_norm: Tensor  # [hidden]
    attention: HalfLayer
    attention_delta_norm: Tensor | None  # [hidden]
    mlp_norm: Tensor  # [hidden]
    mlp: HalfLayer
    mlp_delta_norm: Tensor | None  # [hidden]


@dataclass(frozen=True, slots=True)
class Delta:
    """What a half layer has left to be added to the residual, and the norm that it gets before, if any."""

    rows: Tensor  # [max_tokens, hidden]
    norm: Tensor | None  # [hidden]


class Decoder:
    """Layers, buffers and the order of calls. It holds no state of a step but its activations and caches."""

    def __init__(
        self,
        shape: DecoderShape,
        weights: DecoderWeights,
        layers: tuple[DecoderLayer, ...],
        *,
        share: ModelShare,
        groups: RankGroups,
        activations: Activations,
        expert_counts: Tensor | None = None,
    ) -> None:
        """Takes all parts. See `decoder_building`.

        Args:
            shape: of the whole model.
            weights: of the rank.
            layers: made of these weights.
            share: what the rank has.
            groups: its ranks.
            activations: buffers.
            expert_counts: [layers, num_experts] int64, grown by each step; None: there are no experts.
        """
        self.shape = shape
        self.share = share
        self.activations = activations
        self.expert_counts = expert_counts
        self._weights = weights
        self._layers = layers
        self._groups = groups

    @property
    def logits(self) -> ShardedLogits | None:
        """What `forward` writes; None where another stage has the head."""
        if self.activations.rank_logits is None:
            return None
        return ShardedLogits(
            rank_logits=self.activations.rank_logits,
            logits=self.activations.logits if self.share.position.chooses else None,
            ranks=self._groups.tensor,
            vocabularies=self.share.vocabularies,
        )

    @property
    def waited_s(self) -> float:
        """Seconds that the rank has waited for its neighbours in the pipeline so far."""
        return self._groups.pipeline.waited_s

    def forward(self, operations: Operations, step: StepBuffers) -> None:
        """Computes the step's tokens: keys and values into the caches, logits of sampled rows into the activations.

        Args:
            operations: make the calls, or record them.
            step: the batch.
        """
        self._enter(operations, step)
        delta = None
        for layer in self._layers:
            self._half(operations, delta, layer.attention_norm, layer.attention, step=step)
            delta = Delta(self.activations.delta, layer.attention_delta_norm)
            self._half(operations, delta, layer.mlp_norm, layer.mlp, step=step)
            delta = Delta(self.activations.delta, layer.mlp_delta_norm)
        assert delta is not None, "a stage has at least one layer"
        self._leave(operations, delta, step)

    def _enter(self, operations: Operations, step: StepBuffers) -> None:
        """Fills the residual."""
        residual, embedding = self.activations.residual, self._weights.embedding
        if embedding is None:
            pipeline = self._groups.pipeline
            operations.receive(residual, pipeline, pipeline.place.rank - 1, rows=Rows.TOKENS, step=step)
            return
        scale = self.shape.embedding_scale
        first_id = self.share.vocabulary.start if self.share.position.plan.tp > 1 else None
        operations.embedding(residual, embedding, scale=scale, first_id=first_id, step=step)
        operations.all_reduce(residual, self._groups.tensor, rows=Rows.TOKENS, step=step)

    def _half(
        self, operations: Operations, delta: Delta | None, norm: Tensor, half: HalfLayer, *, step: StepBuffers
    ) -> None:
        buffers = self.activations
        operations.rms_norm(
            buffers.normed,
            buffers.residual,
            None if delta is None else delta.rows,
            norm,
            delta_weight=None if delta is None else delta.norm,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.TOKENS,
            reader=half.reader,
            plain=half.plain,
            step=step,
        )
        half.record(operations, buffers.normed, buffers.delta, step)

    def _leave(self, operations: Operations, delta: Delta, step: StepBuffers) -> None:
        """Makes logits of the residual, or hands it on."""
        residual = self.activations.residual
        if self.share.position.is_last_stage:
            self._head(operations, delta, step)
            return
        pipeline = self._groups.pipeline
        operations.add_delta(residual, delta.rows, delta_weight=delta.norm, epsilon=self.shape.norm_epsilon, step=step)
        operations.send(residual, pipeline, pipeline.place.rank + 1, rows=Rows.TOKENS, step=step)

    def _head(self, operations: Operations, delta: Delta, step: StepBuffers) -> None:
        buffers, head, norm = self.activations, self._weights.lm_head, self._weights.final_norm
        assert head is not None and norm is not None, "the last stage has a head"
        assert buffers.sampled is not None and buffers.rank_logits is not None, "and buffers for it"
        operations.rms_norm(
            buffers.sampled,
            buffers.residual,
            delta.rows,
            norm,
            delta_weight=delta.norm,
            epsilon=self.shape.norm_epsilon,
            rows=Rows.SAMPLED,
            reader=head,
            step=step,
        )
        operations.linear(buffers.rank_logits, buffers.sampled, head, rows=Rows.SAMPLED, step=step)
        if self.shape.logit_softcap is not None:
            operations.soft_cap(buffers.rank_logits, cap=self.shape.logit_softcap, rows=Rows.SAMPLED, step=step)
