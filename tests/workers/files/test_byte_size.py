import pytest

from shardline_workers.files.byte_size import shown_bytes


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_362_432, "98.4 MB"),
        (7 * 10**9, "7.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_sizes_are_decimal_with_one_digit(num_bytes: int, shown: str) -> None:
    assert shown_bytes(num_bytes) == shown
