"""One rank's weights of latent attention: its heads' parts of what is expanded, and all of what is compressed.

A head's key is never made. Its matrix goes to the queries instead (query · (W · latent) = (query · W) · latent), so all
heads attend to the latent itself, and each makes its value of what it attended to.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from shardline_workers.kernels.kernels import Kernels
from shardline_workers.kernels.operands import MatrixSource, PackedLinear
from shardline_workers.models.latent_shape import LatentShape
from shardline_workers.models.transposed_matrix import TransposedMatrix
from shardline_workers.weights.matrix_part import MatrixPart, SplitAxis, StackEntry
from shardline_workers.weights.weight_loader import WeightLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryWeights:
    """Of queries that are made in two steps."""

    norm: Tensor  # [query_rank]
    expand: PackedLinear  # query_rank → all heads without position, then each head with it


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttentionWeights:
    """A rank's heads of one layer. Matrices that are packed apart are drawn as a list."""

    compress: PackedLinear  # hidden → [the latent of queries, or the queries themselves; latent; shared key]
    queries: QueryWeights | None  # None: `compress` makes them
    kv_norm: Tensor  # [kv_rank]
    absorb: PackedLinear  # of each head nope_dim → kv_rank
    values: PackedLinear  # of each head kv_rank → value_dim
    output: PackedLinear  # values of all heads → hidden

    @property
    def reader(self) -> PackedLinear:
        """What reads the normed rows."""
        return self.compress

    def tensors(self) -> Iterator[Tensor]:
        """All of them."""
        yield self.kv_norm
        for matrix in (self.compress, self.absorb, self.values, self.output):
            yield from matrix.tensors
        if self.queries is not None:
            yield from (self.queries.norm, *self.queries.expand.tensors)


class LatentReader:
    """Reads one rank's heads of latent attention."""

    def __init__(self, shape: LatentShape, heads: range, loader: WeightLoader, kernels: Kernels) -> None:
        self._shape, self._heads = shape, heads
        self._loader, self._kernels = loader, kernels

    def read(self, prefix: str) -> LatentAttentionWeights:
        """The weights of a layer, whose names begin with `prefix`.

        Raises:
            ModelFileError: one is stored in a type that cannot be read.
            ValueError: a block of quantised weights lies in two heads.
        """
        shape, rank = self._shape, self._shape.kv_rank
        down = f"{prefix}.kv_compress"
        kv = ([self._rows(down, range(rank))], [self._rows(down, range(rank, rank + shape.rope_dim))])
        queries = None
        if shape.query_rank is None:
            made = self._query_groups(f"{prefix}.query")
        else:
            made = [[self._loader.matrix(f"{prefix}.query_compress")]]
            queries = self._queries(prefix)
        return LatentAttentionWeights(
            compress=self._kernels.pack_apart([*made, *kv]),
            queries=queries,
            kv_norm=self._loader.tensor(f"{prefix}.kv_compress_norm"),
            absorb=self._kernels.pack_apart([[self._key_matrix(prefix, head)] for head in self._heads]),
            values=self._kernels.pack_apart([[self._value_matrix(prefix, head)] for head in self._heads]),
            output=self._kernels.pack_linear([self._output(prefix)]),
        )

    def _queries(self, prefix: str) -> QueryWeights:
        return QueryWeights(
            norm=self._loader.tensor(f"{prefix}.query_compress_norm"),
            expand=self._kernels.pack_apart(self._query_groups(f"{prefix}.query_expand")),
        )

    def _query_groups(self, name: str) -> list[Sequence[MatrixSource]]:
        size, split = self._shape.query_dim, self._shape.nope_dim
        starts = [head * size for head in self._heads]
        without_position = [self._rows(name, range(start, start + split)) for start in starts]
        return [without_position, *([self._rows(name, range(start + split, start + size))] for start in starts)]

    def _key_matrix(self, prefix: str, head: int) -> MatrixSource:
        if self._shape.is_split:
            return self._loader.matrix(f"{prefix}.key_absorb", StackEntry(head))
        start = head * self._shape.expanded_dim
        return TransposedMatrix(self._rows(f"{prefix}.kv_expand", range(start, start + self._shape.nope_dim)))

    def _value_matrix(self, prefix: str, head: int) -> MatrixSource:
        if self._shape.is_split:
            return self._loader.matrix(f"{prefix}.value_expand", StackEntry(head))
        start, stop = (number * self._shape.expanded_dim for number in (head, head + 1))
        return self._rows(f"{prefix}.kv_expand", range(start + self._shape.nope_dim, stop))

    def _output(self, prefix: str) -> MatrixSource:
        start, stop = (number * self._shape.value_dim for number in (self._heads.start, self._heads.stop))
        return self._loader.matrix(f"{prefix}.attention_output", MatrixPart(SplitAxis.INPUTS, range(start, stop)))

    def _rows(self, name: str, span: range) -> MatrixSource:
        return self._loader.matrix(name, MatrixPart(SplitAxis.OUTPUTS, span))
