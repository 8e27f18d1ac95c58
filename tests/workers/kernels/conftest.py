from collections.abc import Iterator

import pytest
import torch

from shardline_workers.kernels.native_kernels import NativeKernels
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.kernels.reference_kernels import ReferenceKernels
from tests.workers.kernels.cases import CPU, Case

INT8_ROUNDED = 5e-2  # int8 keys, values and queries: 1/254 of their group's greatest, of several numbers together


@pytest.fixture(params=["reference", "native"])
def case(request: pytest.FixtureRequest, native_library: NativeLibrary) -> Iterator[Case]:
    if request.param == "reference":
        yield Case(ReferenceKernels(dtype=torch.float64, device=CPU), exact=1e-12, rounded=1e-12)
    else:
        with NativeKernels(native_library, num_threads=1) as kernels:
            yield Case(kernels, exact=2e-5, rounded=2e-2)


@pytest.fixture(params=["reference", "reference int8", "native", "native int8"])
def kv_case(request: pytest.FixtureRequest, native_library: NativeLibrary) -> Iterator[Case]:
    """The same with every format of keys and values."""
    is_int8 = request.param.endswith("int8")
    if request.param.startswith("reference"):
        kernels = ReferenceKernels(dtype=torch.float64, device=CPU, kv_dtype=torch.int8 if is_int8 else None)
        yield Case(kernels, exact=1e-12, rounded=INT8_ROUNDED if is_int8 else 1e-12)
        return
    kv_dtype = torch.int8 if is_int8 else torch.bfloat16
    with NativeKernels(native_library, num_threads=1, kv_dtype=kv_dtype) as native:
        yield Case(native, exact=2e-5, rounded=INT8_ROUNDED if is_int8 else 2e-2)
