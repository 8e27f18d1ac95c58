"""Builds native kernels before any replica starts: once for all of them, where the user sees what is missing."""

from collections.abc import Callable, Mapping

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_workers.kernels.native_library import NativeUnavailableError, load_native_library


def prepare_native_kernels(
    options: EngineOptions, *, environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Builds them where replicas on this machine may want them; without a compiler it says what that costs.

    Raises:
        ConfigurationError: nothing but native kernels was asked for, and there are none here.
    """
    if options.engine != "shardline" or options.device != "cpu" or options.dtype != "auto":
        return
    if options.kernels == "reference":
        return
    try:
        load_native_library(environment, say)
    except NativeUnavailableError as error:
        if options.kernels == "native":
            raise ConfigurationError(f"--kernels native: {error}") from error
        say(f"WARNING: the reference kernels take over: {error}")
