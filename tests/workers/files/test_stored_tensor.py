"""Parts of a stored matrix are views of the file's own bytes: cut by rows, by columns, and both."""

import numpy as np
import pytest

from shardline_workers.files.stored_rows import stored_rows
from shardline_workers.files.stored_tensor import StoredTensor

WIDTH = 6  # numbers of a row


def matrix(num_rows: int = 4) -> tuple[StoredTensor, np.ndarray]:
    numbers = np.arange(num_rows * WIDTH, dtype="<f4").reshape(num_rows, WIDTH)
    return StoredTensor("F32", numbers.shape, memoryview(numbers.tobytes())), numbers


def numbers_of(part: StoredTensor) -> np.ndarray:
    return np.ascontiguousarray(stored_rows(part)).view("<f4")


def test_rows_and_columns_can_be_cut_in_any_order_and_again() -> None:
    whole, numbers = matrix()

    one = whole.rows(range(1, 4)).columns(range(2, 5))
    other = whole.columns(range(1, 6)).rows(range(1, 4)).columns(range(1, 4))

    assert one.shape == other.shape == (3, 3)
    assert np.array_equal(numbers_of(one), numbers[1:4, 2:5])
    assert np.array_equal(numbers_of(other), numbers[1:4, 2:5])


def test_a_part_holds_no_byte_before_its_first_or_behind_its_last_number() -> None:
    whole, _ = matrix()

    rows, columns = whole.rows(range(1, 3)), whole.columns(range(2, 4))

    assert len(rows.data) == 2 * WIDTH * 4
    assert len(columns.data) == (3 * WIDTH + 2) * 4
    assert columns.row_bytes == 2 * 4


@pytest.mark.parametrize("part", [range(5), range(4, 4), range(-1, 2)])
def test_rows_that_are_not_there_are_refused(part: range) -> None:
    with pytest.raises(ValueError, match="but the matrix has 4"):
        matrix()[0].rows(part)


@pytest.mark.parametrize("part", [range(7), range(3, 3)])
def test_columns_that_are_not_there_are_refused(part: range) -> None:
    with pytest.raises(ValueError, match="but the matrix has 6"):
        matrix()[0].columns(part)


def test_a_block_cannot_be_cut_in_two() -> None:
    blocks = StoredTensor("Q8_0", (2, 64), memoryview(bytes(2 * 2 * 34)))

    assert blocks.columns(range(32, 64)).row_bytes == 34
    with pytest.raises(ValueError, match="Q8_0 can only be cut at multiples of 32: take fewer ranks"):
        blocks.columns(range(16, 48))
