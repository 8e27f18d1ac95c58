"""The samples as tables in Markdown, for people. Pure."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.compare.points import CONCURRENCIES, ENGINE_POINTS, FORMAT_TO_PRECISION, OURS, SERVER_POINTS
from benchmarks.compare.samples import Place, Sample, Spread, noise_summary, spreads

_SERVER_FIGURES = ("tokens_per_s", "decode_tokens_per_s", "first_token_p50_ms", "inter_token_p50_ms")
_TITLES = {
    "tokens_per_s": "tok/s",
    "decode_tokens_per_s": "decode tok/s",
    "first_token_p50_ms": "first token p50, ms",
    "inter_token_p50_ms": "between tokens p50, ms",
}
Found = Mapping[Place, Spread]


def all_tables(samples: Sequence[Sample]) -> str:
    """Every table for which there are samples."""
    found = spreads(samples)
    builders: Sequence[Callable[[Found], list[str]]] = (_engine_table, _server_table, _memory_table, _perplexity_table)
    tables = [table for builder in builders if len(table := builder(found)) > 2]
    return "\n\n".join("\n".join(table) for table in [*tables, _noise_lines(samples)] if table)


def _engine_table(found: Found) -> list[str]:
    points = [str(point) for point in ENGINE_POINTS]
    lines = _head(["engine to engine, tok/s", *points], num_texts=1)
    for format_name, contender in _who(found, "engines"):
        cells = [found.get(Place("engines", point, format_name, contender, "tokens_per_s")) for point in points]
        lines.append(_row([f"{contender} {format_name}", *(_cell(cell) for cell in cells)]))
    return lines


def _server_table(found: Found) -> list[str]:
    lines = _head(["through the servers", "streams", *(_TITLES[figure] for figure in _SERVER_FIGURES)], num_texts=1)
    for size, point in zip(CONCURRENCIES, SERVER_POINTS, strict=True):
        for format_name, contender in _who(found, "servers"):
            places = [Place("servers", str(point), format_name, contender, figure) for figure in _SERVER_FIGURES]
            if any(place in found for place in places):
                cells = [_cell(found.get(place)) for place in places]
                lines.append(_row([f"{contender} {format_name}", str(size), *cells]))
    return lines


def _memory_table(found: Found) -> list[str]:
    lines = _head(["memory, MiB", "weights and KV", "system"], num_texts=1)
    for format_name, contender in _who(found, "memory"):
        cells = [
            found.get(Place("memory", point, format_name, contender, "mib")) for point in ("weights and KV", "system")
        ]
        lines.append(_row([f"{contender} {format_name}", *(f"{c.median:.0f}" if c else "" for c in cells)]))
    return lines


def _perplexity_table(found: Found) -> list[str]:
    lines = _head(["perplexity", ""], num_texts=1)
    for format_name, contender in _who(found, "perplexity"):
        spread = found[Place("perplexity", "fixed text", format_name, contender, "perplexity")]
        lines.append(_row([f"{contender} {format_name}", f"{spread.median:.3f}"]))
    return lines


def _noise_lines(samples: Sequence[Sample]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {spread.median:.3g} ({spread.least:.3g} to {spread.most:.3g})"
        for name, spread in noise_summary(samples).items()
    ]


def _who(found: Found, part: str) -> list[tuple[str, str]]:
    """(format, contender) pairs, format by format, ours first."""
    order = list(FORMAT_TO_PRECISION)
    pairs = {(place.format, place.contender) for place in found if place.part == part}
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1] != OURS, pair[1]))


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return (
        f"{spread.median:.0f} ({spread.least:.0f}–{spread.most:.0f})" if spread.rounds > 1 else f"{spread.median:.0f}"
    )


def _head(titles: Sequence[str], *, num_texts: int) -> list[str]:
    rule = ["---" if place < num_texts else "--:" for place in range(len(titles))]
    return [_row(titles), _row(rule)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
