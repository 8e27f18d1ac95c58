"""The samples as a picture. Needs matplotlib, which nothing else here needs: the extra `plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.compare.points import ENGINE_POINTS, FORMAT_TO_PRECISION, LLAMA, OURS, SERVER_POINTS, VLLM
from benchmarks.compare.samples import Place, Sample, Spread, spreads

_COLOURS = {OURS: "#2b6cb0", LLAMA: "#c05621", VLLM: "#718096"}
_WIDTH = 0.8  # of a group of bars
_INCHES = (3.6, 3.2)  # of one panel


def draw(samples: Sequence[Sample], path: Path) -> None:
    """A panel for each point: bars by format, medians with the rounds' range; tokens a second.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    found = spreads(samples)
    panels = [("engines", str(point)) for point in ENGINE_POINTS] + [("servers", str(p)) for p in SERVER_POINTS]
    panels = [panel for panel in panels if any((place.part, place.point) == panel for place in found)]
    columns = min(4, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(_INCHES[0] * columns, _INCHES[1] * rows), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, found, part=panel[0], point=panel[1])
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(_COLOURS))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axis: Any, found: dict[Place, Spread], *, part: str, point: str) -> None:
    formats = [name for name in FORMAT_TO_PRECISION if any(place.format == name for place in found)]
    width = _WIDTH / len(_COLOURS)
    for shift, (contender, colour) in enumerate(_COLOURS.items()):
        bars = [found.get(Place(part, point, name, contender, "tokens_per_s")) for name in formats]
        heights = [bar.median if bar else 0.0 for bar in bars]
        below = [bar.median - bar.least if bar else 0.0 for bar in bars]
        above = [bar.most - bar.median if bar else 0.0 for bar in bars]
        places = [group + (shift - 1) * width for group in range(len(formats))]
        axis.bar(places, heights, width, yerr=(below, above), color=colour, label=contender, error_kw={"lw": 0.8})
    axis.set_xticks(range(len(formats)), formats)
    axis.set_title(f"{'engine' if part == 'engines' else 'servers'}: {point}, tok/s", fontsize=9)
    axis.tick_params(labelsize=8)
