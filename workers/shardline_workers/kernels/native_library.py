"""The built native kernels, loaded: every function of native/api.h with its types, and errors as exceptions."""

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shardline_workers.kernels.native_api import ABI_VERSION, FUNCTIONS, Cache, Format, Op, PanelKind, Source, Status
from shardline_workers.kernels.native_build import built_library
from shardline_workers.kernels.native_compiler import CompilerError
from shardline_workers.kernels.native_ranks_api import RANKS_FUNCTIONS
from shardline_workers.kernels.native_ring_api import RING_FUNCTIONS

# What a user loses without them, and where that was measured.
COST = (
    "the reference kernels answer about 9 times slower (SmolLM2-135M, one stream through the server, two cores of an"
    " Intel Xeon: 16 tokens/s instead of 152 in the median round; benchmarks/results/serve_load)"
)
CURE = "install a C++17 compiler (g++ 11 or clang++ 14, or newer), or name one in CXX, and start again"

_ALL_FUNCTIONS = FUNCTIONS | RANKS_FUNCTIONS | RING_FUNCTIONS


class NativeUnavailableError(Exception):
    """There are no native kernels here; the text says what is missing, what that costs, and the cure."""


class NativeError(Exception):
    """A native function refused what it was given; the text is its own."""


class NativeLibrary:
    """One loaded library. Raises NativeError where a function fails."""

    def __init__(self, path: Path) -> None:
        """Loads `path`.

        Raises:
            NativeUnavailableError: it cannot be loaded, or was built from another interface.
        """
        try:
            self._functions = ctypes.CDLL(str(path))
            for name, (result, arguments) in _ALL_FUNCTIONS.items():
                function = getattr(self._functions, name)
                function.restype, function.argtypes = result, list(arguments)
        except (OSError, AttributeError) as error:
            raise NativeUnavailableError(f"the native kernels cannot be loaded: {error}; delete {path}") from error
        version, op_bytes = self.sl_abi_version(), self.sl_op_bytes()
        if version != ABI_VERSION or op_bytes != ctypes.sizeof(Op):
            raise NativeUnavailableError(
                f"the native kernels at {path} speak version {version} with operations of {op_bytes} bytes, but"
                f" {ABI_VERSION} with {ctypes.sizeof(Op)} is expected; delete the file, and install shardline anew"
            )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function of api.h, ranks_api.h or ring_api.h by its name."""
        if name not in _ALL_FUNCTIONS:
            raise AttributeError(name)
        function: Callable[..., Any] = getattr(self._functions, name)
        return function

    def checked(self, status: int) -> int:
        """Passes a status or a size that is no error.

        Raises:
            MemoryError: there was not enough memory.
            NativeError: anything else.
        """
        if status >= 0:
            return status
        text = (self.sl_last_error() or b"").decode(errors="replace")
        if status == Status.NO_MEMORY:
            raise MemoryError(text)
        raise NativeError(text or f"a native function failed with status {status}")

    def checked_pointer(self, pointer: int | None) -> int:
        """Passes a pointer that is not NULL.

        Raises:
            NativeError: it is.
        """
        if not pointer:
            self.checked(Status.BAD_ARGUMENT)
        assert pointer is not None, "NULL was refused above"
        return pointer

    def weight_bytes(self, kind: Format, num_outputs: int, num_inputs: int) -> int:
        """Size of a packed matrix."""
        return self.checked(self.sl_weight_bytes(kind, num_outputs, num_inputs))

    def source_bytes(self, source: Source, num_rows: int, num_inputs: int) -> int:
        """Size of rows before they are packed."""
        return self.checked(self.sl_source_bytes(source, num_rows, num_inputs))

    def panel_bytes(self, kind: PanelKind, max_rows: int, num_inputs: int) -> int:
        """Size of a panel buffer."""
        return self.checked(self.sl_panel_bytes(kind, max_rows, num_inputs))

    def kv_cache_bytes(self, cache: Cache) -> int:
        """Size of one layer's cache."""
        return self.checked(self.sl_kv_cache_bytes(ctypes.byref(cache)))

    def available_isas(self) -> dict[str, int]:
        """Instruction sets that were compiled in and that this processor has: name → number, slowest first."""
        available = self.sl_isa_available()
        numbers = [number for number in range(32) if available >> number & 1]
        return {self.sl_isa_name(number).decode(): number for number in numbers}

    def best_isa(self) -> str:
        """The fastest of them."""
        name: bytes = self.sl_isa_name(self.sl_isa_best())
        return name.decode()


def load_native_library(environment: Mapping[str, str], report: Callable[[str], None]) -> NativeLibrary:
    """Builds the library where that was not done yet, and loads it.

    Args:
        environment: says where compiler and cache are.
        report: gets a line when something is built.

    Raises:
        NativeUnavailableError: it cannot be built or loaded.
    """
    try:
        path = built_library(environment, report)
    except CompilerError as error:
        raise NativeUnavailableError(f"{error}; without native kernels {COST}; {CURE}") from error
    except OSError as error:
        raise NativeUnavailableError(
            f"the native kernels cannot be built into the cache folder: {error}; without them {COST}; set"
            " XDG_CACHE_HOME to a folder that can be written"
        ) from error
    return NativeLibrary(path)
