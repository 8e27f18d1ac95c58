"""Whether this machine has the GPU that was asked for: Ray would let replicas wait for one for ever."""

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.engine_bounds import SIMULATED
from shardline_cluster.serve.serve_options import ServeOptions


def check_device(options: ServeOptions) -> None:
    """Tries the device where all replicas run on this machine.

    Raises:
        ConfigurationError: it cannot be used here.
    """
    if options.engine.device == "cpu" or options.engine.engine == SIMULATED or options.ray_address is not None:
        return
    # Imported here since it brings torch, which `serve` on a CPU does without.
    from shardline_workers.kernels.kernel_choice import choose_device, refuse_unusable_device

    try:
        refuse_unusable_device(choose_device(options.engine.device))
    except ValueError as error:
        raise ConfigurationError(f"--device {options.engine.device}: {error}") from error
