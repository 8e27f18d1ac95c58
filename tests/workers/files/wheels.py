"""Builds small wheels that carry a model, for tests."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.workers.files.gguf_bytes import TensorInfo, gguf_bytes, pair

TINY_GGUF = gguf_bytes(pairs=[pair("general.architecture", "llama")], tensors=[TensorInfo("w", [2])], data=b"\0" * 8)


def write_wheel(folder: Path, files: Mapping[str, bytes], *, package: str = "tiny_model", version: str = "1.0") -> Path:
    """A wheel with `files` and the metadata that pip asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, **metadata}.items():
            archive.writestr(name, content)
    return path
