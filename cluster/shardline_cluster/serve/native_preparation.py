"""Builds native kernels before any replica starts: once for all of them, where the user sees what is missing."""

from collections.abc import Callable, Mapping

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_workers.kernels.native_library import NativeUnavailableError, load_native_library


def prepare_native_kernels(
    options: EngineOptions, *, environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Builds them where replicas on this machine may want them; where they cannot be used it says what that costs.

    Raises:
        ConfigurationError: nothing but native kernels was asked for, and they cannot be used here.
    """
    if options.engine != "shardline" or options.device != "cpu" or options.kernels == "reference":
        return
    if options.dtype != "auto":
        _tell_of_dtype(options, say)
        return
    try:
        load_native_library(environment, say)
    except NativeUnavailableError as error:
        if options.kernels == "native":
            raise ConfigurationError(f"--kernels native: {error}") from error
        say(f"WARNING: the reference kernels take over: {error}")


def _tell_of_dtype(options: EngineOptions, say: Callable[[str], None]) -> None:
    if options.kernels == "native":
        raise ConfigurationError(
            f"--kernels native computes in the file's own format, so --dtype {options.dtype} cannot be had: leave"
            f" --dtype out, or take --kernels reference"
        )
    say(
        f"WARNING: the reference kernels compute, many times slower than native ones, since only they know --dtype"
        f" {options.dtype}: leave it out for native ones"
    )
