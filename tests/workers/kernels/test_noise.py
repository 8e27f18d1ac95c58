import math

import numpy as np
import torch

from shardline_workers.kernels.noise import gumbel_noise, noise_key, noise_stream, position_keys, uniform_noise

MASK = (1 << 64) - 1


def splitmix64(key: int, step: int) -> int:
    """The generator's published form: its output after so many steps from a state."""
    value = (key + step * 0x9E3779B97F4A7C15) & MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def test_noise_is_splitmix64_in_exact_integers() -> None:
    keys = [noise_key(seed=seed, sequence=1, position=2) for seed in (0, 7, MASK)]

    noise = uniform_noise(torch.tensor(keys), 100)

    expected = [[((splitmix64(key & MASK, token + 1) >> 12) + 0.5) * 2.0**-52 for token in range(100)] for key in keys]
    assert noise.tolist() == expected


def test_the_published_numbers_of_splitmix64_come_out() -> None:
    assert [splitmix64(1234567, step) for step in (1, 2, 3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_each_of_seed_sequence_and_position_changes_the_key() -> None:
    parts = range(5)

    keys = {noise_key(seed=a, sequence=b, position=c) for a in parts for b in parts for c in parts}

    assert len(keys) == 125
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_noise_lies_strictly_between_zero_and_one_and_is_even() -> None:
    noise = uniform_noise(torch.arange(20), 5000).flatten()

    assert 0 < noise.min() < 0.001
    assert 0.999 < noise.max() < 1
    counts = torch.histc(noise, bins=10, min=0, max=1)
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000)


def test_a_row_of_noise_does_not_depend_on_the_other_rows_or_on_the_vocabulary() -> None:
    keys = torch.tensor([11, -12, 13])

    together = gumbel_noise(keys, 50)

    assert torch.equal(together[1, :30], gumbel_noise(keys[1:2], 30)[0])
    assert together.isfinite().all()


def test_keys_of_many_rows_at_once_are_those_of_each() -> None:
    choices = [(seed, sequence, position) for seed in (0, 5, MASK) for sequence in (0, 3) for position in (0, 1, 2**40)]
    streams = np.array([noise_stream(seed=seed, sequence=sequence) for seed, sequence, _ in choices], np.uint64)

    keys = position_keys(streams, np.array([position for *_, position in choices], np.uint64))

    assert keys.view(np.int64).tolist() == [noise_key(seed=a, sequence=b, position=c) for a, b, c in choices]
