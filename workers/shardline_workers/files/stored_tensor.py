"""A tensor as it lies in its file: the bytes and what they mean. Parts of it are cut without a byte being read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from shardline_workers.files.ggml_types import GGML_TYPES, GgmlType

_KINDS: Mapping[str, GgmlType] = MappingProxyType({kind.name: kind for kind in GGML_TYPES.values()})


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of an open file, or a part of one. The bytes are the file's: they go with it.

    data ─▶ | row 0 ··········|  others' columns  | row 1 ··········|  others' columns  | row 2 ··········|
            |◀──── one stride of row_stride_bytes ───▶|
    """

    kind: str  # F64, F32, F16, BF16, or one of ggml's block types by its name
    shape: tuple[int, ...]  # row-major
    data: memoryview  # of bytes, from the first row's first to the last row's last
    row_stride_bytes: int | None = None  # from one row to the next; None: they touch, as in a whole tensor

    @property
    def block_weights(self) -> int:
        """Weights of a row that share a scale, and so stay together."""
        return _KINDS[self.kind].block_weights if self.kind in _KINDS else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; of a matrix whose rows touch also the distance between two."""
        if self.row_stride_bytes is None:
            return len(self.data) // self.shape[0]
        return len(self.data) - (self.shape[0] - 1) * self.row_stride_bytes

    def entry(self, index: int) -> "StoredTensor":
        """One of the matrices of this stack of them.

        Raises:
            ValueError: it has no such matrix.
        """
        count, *shape = self.shape
        if not 0 <= index < count:
            raise ValueError(f"matrix {index} was asked for, but the stack has {count}")
        size = len(self.data) // count
        return replace(self, shape=tuple(shape), data=self.data[index * size : (index + 1) * size])

    @property
    def num_bytes(self) -> int:
        """Of its own rows, without what lies between them."""
        return self.shape[0] * self.row_bytes

    def rows(self, part: range) -> "StoredTensor":
        """Some neighbouring rows of this matrix.

        Raises:
            ValueError: it has no such rows.
        """
        num_rows, *rest = self.shape
        if not 0 <= part.start < part.stop <= num_rows:
            raise ValueError(f"rows {part.start} to {part.stop} were asked for, but the matrix has {num_rows}")
        stride = self.row_stride_bytes or self.row_bytes
        data = self.data[part.start * stride : (part.stop - 1) * stride + self.row_bytes]
        return replace(self, shape=(len(part), *rest), data=data)

    def columns(self, part: range) -> "StoredTensor":
        """Some neighbouring columns of this matrix.

        Raises:
            ValueError: it has no such columns, or one of its blocks lies on both sides of a cut.
        """
        num_rows, num_columns = self.shape
        if not 0 <= part.start < part.stop <= num_columns:
            raise ValueError(f"columns {part.start} to {part.stop} were asked for, but the matrix has {num_columns}")
        if part.start % self.block_weights or part.stop % self.block_weights:
            raise ValueError(
                f"columns {part.start} to {part.stop} were asked for, but {self.kind} can only be cut at multiples of "
                f"{self.block_weights}: take fewer ranks, or a file of another type"
            )
        stride = self.row_stride_bytes or self.row_bytes
        first, width = (self.row_bytes * count // num_columns for count in (part.start, len(part)))
        data = self.data[first : first + (num_rows - 1) * stride + width]
        return replace(self, shape=(num_rows, len(part)), data=data, row_stride_bytes=stride)
