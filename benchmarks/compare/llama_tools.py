"""llama.cpp's own measuring tools: how they are called and what their output says. Pure: no process is started here.

`llama-bench` computes one sequence, behind a context of `-d` tokens; `llama-batched-bench` prefills and decodes many at
once. Neither samples. Both warm up by themselves.
"""

import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.compare.points import ENGINE_DECODE_TOKENS, PROMPT_TOKENS, Point, Work

_PERPLEXITY = re.compile(r"Final estimate: PPL = ([0-9.]+)")
_CHUNKS = re.compile(r"perplexity: calculating perplexity over (\d+) chunks")
_SYSTEM_INFO = re.compile(r"system_info:.*")


class ToolOutputError(ValueError):
    """A tool printed something else than it used to: another version, or it failed."""


def bench_command(tool: Path, model: Path, point: Point, *, threads: int, repetitions: int) -> list[str]:
    """`llama-bench` for a prefill, or for decoding one sequence."""
    work = (
        ["-p", str(point.size), "-n", "0"]
        if point.work is Work.PREFILL
        else ["-p", "0", "-n", str(ENGINE_DECODE_TOKENS), "-d", str(PROMPT_TOKENS)]
    )
    return [str(tool), "-m", str(model), "-t", str(threads), "-r", str(repetitions), "-o", "jsonl", *work]


def batched_command(tool: Path, model: Path, point: Point, *, threads: int, repetitions: int) -> list[str]:
    """`llama-batched-bench` for decoding `point.size` sequences at once."""
    context = point.size * (PROMPT_TOKENS + ENGINE_DECODE_TOKENS)
    return [
        *(str(tool), "-m", str(model), "-c", str(context), "-t", str(threads), "--output-format", "jsonl"),
        *("-npp", str(PROMPT_TOKENS), "-ntg", str(ENGINE_DECODE_TOKENS)),
        *("-npl", ",".join([str(point.size)] * repetitions)),
    ]


def perplexity_command(tool: Path, model: Path, text: Path, *, threads: int, chunk_tokens: int) -> list[str]:
    """`llama-perplexity` over a file in chunks; only the second half of each chunk counts."""
    size = str(chunk_tokens)
    return [str(tool), "-m", str(model), "-f", str(text), "-c", size, "-b", size, "-t", str(threads)]


def bench_tokens_per_s(output: str) -> float:
    """The median of `llama-bench`'s repetitions.

    Raises:
        ToolOutputError: there is not exactly one result.
    """
    rows = _json_lines(output, "samples_ts")
    if len(rows) != 1:
        raise ToolOutputError(f"llama-bench printed {len(rows)} results where one was asked for: {output[-500:]!r}")
    return float(statistics.median(rows[0]["samples_ts"]))


def batched_decode_tokens_per_s(output: str) -> float:
    """The median of `llama-batched-bench`'s repetitions, of decoding alone.

    Raises:
        ToolOutputError: there is no result.
    """
    rows = _json_lines(output, "speed_tg")
    if not rows:
        raise ToolOutputError(f"llama-batched-bench printed no result: {output[-500:]!r}")
    return float(statistics.median(row["speed_tg"] for row in rows))


def perplexity(output: str) -> tuple[float, int]:
    """Perplexity, and over how many chunks.

    Raises:
        ToolOutputError: there is none.
    """
    final, chunks = _PERPLEXITY.search(output), _CHUNKS.search(output)
    if not final or not chunks:
        raise ToolOutputError(f"llama-perplexity printed no final estimate: {output[-500:]!r}")
    return float(final.group(1)), int(chunks.group(1))


def system_info(output: str) -> str:
    """The line in which llama.cpp tells which instructions it uses; empty where there is none."""
    found = _SYSTEM_INFO.search(output)
    return found.group(0) if found else ""


def _json_lines(output: str, wanted: str) -> list[dict[str, Any]]:
    rows = []
    for line in output.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and wanted in row:
            rows.append(row)
    return rows
