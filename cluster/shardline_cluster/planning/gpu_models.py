"""Known GPUs. Numbers without sparsity, of the vendors' data sheets and architecture papers.

NVIDIA  data sheets of T4, A10, A100, L4, L40S, H100 (SXM, PCIe, NVL), H200 and HGX B200; for GeForce cards the
        architecture papers on GA102, Ada and RTX Blackwell (matrix units with 32-bit sums)
AMD     data sheet of Instinct MI300X

Memory is what drivers report as a card's total, in GiB: less than its name says where error correction takes a part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shardline_workers.memory_budget import CARD_SHARE

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One kind of card."""

    name: str
    memory_gib: float
    bandwidth_gb_s: float  # of its memory
    fp16_tflops: float  # matrix units, bf16 is as fast
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    aliases: tuple[str, ...] = ()  # as people write them, in the letters and digits that count

    @property
    def usable_bytes(self) -> int:
        """What ranks may take."""
        return int(self.memory_gib * GIB * CARD_SHARE)

    def flops_s(self, arithmetic: str) -> float:
        """Operations a second; in fp16 where it has no units for the arithmetic."""
        own = {"fp8": self.fp8_tflops, "int8": self.int8_tops}.get(arithmetic)
        return (own or self.fp16_tflops) * 1e12


GPU_MODELS = (
    GpuModel("T4", 15.0, 320, 65, None, 130),
    GpuModel("RTX-3090", 24.0, 936, 71, None, 284, ("3090", "rtx309024gb")),
    GpuModel("RTX-4090", 24.0, 1008, 165.2, 330.3, 660.6, ("4090", "rtx409024gb")),
    GpuModel("RTX-5090", 31.8, 1792, 209.5, 419, 838, ("5090", "rtx509032gb")),
    GpuModel("A10", 22.5, 600, 125, None, 250, ("a1024gb",)),
    GpuModel("L4", 22.5, 300, 121, 242, 242, ("l424gb",)),
    GpuModel("L40S", 45.0, 864, 362, 733, 733, ("l40s48gb",)),
    GpuModel("A100-40GB", 39.5, 1555, 312, None, 624, ("a10040gbsxm", "a100sxm40gb")),
    GpuModel("A100-80GB", 79.3, 2039, 312, None, 624, ("a10080gbsxm", "a100sxm80gb")),
    GpuModel("H100-80GB", 79.6, 3350, 989, 1979, 1979, ("h100", "h100sxm", "h100sxm80gb", "h10080gbsxm")),
    GpuModel("H100-PCIe", 79.6, 2000, 756, 1513, 1513, ("h100pcie80gb", "h10080gbpcie")),
    GpuModel("H100-NVL", 93.6, 3900, 835, 1671, 1671, ("h100nvl94gb", "h10094gb")),
    GpuModel("H200-141GB", 140.4, 4800, 989, 1979, 1979, ("h200",)),
    GpuModel("B200-180GB", 179.0, 8000, 2250, 4500, 4500, ("b200", "b200192gb")),
    GpuModel("MI300X", 191.5, 5300, 1307, 2615, 2615, ("mi300x192gb",)),
)


def find_gpu(text: str) -> GpuModel:
    """The card that a text names, in any case of letters, with or without dashes and NVIDIA.

    Raises:
        ValueError: there is none, or several; the text names those that are known.
    """
    found = _by_name().get(_plain(text))
    if found is not None:
        return found
    meant = [gpu.name for gpu in GPU_MODELS if _plain(text) and gpu.name.lower().startswith(text.strip().lower())]
    if meant:
        raise ValueError(f"{text!r} may mean {' or '.join(meant)}: name one of them")
    raise ValueError(
        f"{text!r} is no GPU that is known here: it must be one of {', '.join(g.name for g in GPU_MODELS)}"
    )


def _by_name() -> Mapping[str, GpuModel]:
    names = {_plain(gpu.name): gpu for gpu in GPU_MODELS}
    aliases = {alias: gpu for gpu in GPU_MODELS for alias in gpu.aliases}
    return MappingProxyType(names | aliases)


def _plain(text: str) -> str:
    letters = "".join(character for character in text.lower() if character.isalnum())
    for maker in ("nvidia", "amd", "geforce", "tesla", "instinct"):
        letters = letters.removeprefix(maker)
    return letters
