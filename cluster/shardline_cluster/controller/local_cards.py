"""The GPUs of this machine, as the driver lists them: without torch, which would take seconds and memory to ask."""

from pathlib import Path

_FOLDER = Path("/proc/driver/nvidia/gpus")
_MODEL = "Model:"


def local_cards(folder: Path = _FOLDER) -> tuple[str, ...]:
    """The model of each GPU, in the order of their bus addresses; none where there is no driver."""
    return tuple(_model(file) for file in sorted(folder.glob("*/information")))


def _model(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines()
    return next((line.removeprefix(_MODEL).strip() for line in lines if line.startswith(_MODEL)), "GPU")
