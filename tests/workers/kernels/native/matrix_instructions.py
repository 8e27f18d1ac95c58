"""What Intel's matrix instruction for bfloat16 computes, in numpy: the order of its sums, and its roundings."""

import numpy as np
from numpy.typing import NDArray

from tests.workers.kernels.native.programs import Floats, rounded_to_bf16

GROUP = 32  # inputs of one instruction
SMALLEST = np.float32(2.0**-126)  # anything nearer to zero counts as zero


def tile_product(x: Floats, weight: Floats) -> Floats:
    """x [rows, inputs] · weight [outputs, inputs] transposed, as TDPBF16PS adds it up, group by group.

    Of 32 inputs the even ones are summed from zero, each product rounded once with its sum; so are the odd ones; their
    sum is added to the total (Intel, Software Developer's Manual, volume 2).
    """
    padding = ((0, 0), (0, -x.shape[1] % GROUP))
    rows, outputs = (np.pad(without_denormals(rounded_to_bf16(matrix)), padding) for matrix in (x, weight))
    total = np.zeros((len(x), len(weight)), dtype=np.float32)
    for start in range(0, rows.shape[1], GROUP):
        halves = [np.zeros_like(total), np.zeros_like(total)]
        for i in range(start, start + GROUP):
            halves[i % 2] = multiply_add(rows[:, i, None], outputs[None, :, i], halves[i % 2])
        total = without_denormals(total + without_denormals(halves[0] + halves[1]))
    return total


def multiply_add(a: Floats, b: Floats, total: Floats) -> Floats:
    """a · b + total for bfloat16 values a and b, rounded once.

    The product is exact in float64, the sum is rounded to odd there: then rounding it to float32 is as good as rounding
    once (Boldo, Melquiond 2008).
    """
    product, wide = a.astype(np.float64) * b.astype(np.float64), total.astype(np.float64)
    rounded = product + wide
    from_product = rounded - wide
    error = (product - from_product) + (wide - (rounded - from_product))
    is_even = rounded.view(np.int64) & 1 == 0
    odd = np.where((error != 0) & is_even, np.nextafter(rounded, np.copysign(np.inf, error)), rounded)
    return without_denormals(odd.astype(np.float32))


def without_denormals(values: Floats) -> NDArray[np.float32]:
    """Those nearer to zero than any normal number become zero of their sign."""
    return np.where(np.abs(values) < SMALLEST, np.copysign(np.float32(0), values), values).astype(np.float32)
