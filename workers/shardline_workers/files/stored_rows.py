"""A stored matrix as rows of bytes for those who compute with it. Apart from its neighbours: this needs numpy."""

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from shardline_workers.files.stored_tensor import StoredTensor


def stored_rows(stored: StoredTensor) -> NDArray[np.uint8]:
    """[rows, bytes of a row], straight in the file: nothing is read before somebody looks at it."""
    num_rows, row_bytes = stored.shape[0], stored.row_bytes
    first = np.frombuffer(stored.data, np.uint8)
    strides = (stored.row_stride_bytes or row_bytes, 1)
    return as_strided(first, (num_rows, row_bytes), strides, writeable=False)
