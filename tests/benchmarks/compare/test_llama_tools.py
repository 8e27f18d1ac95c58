"""What llama.cpp's tools are asked, and what they answer."""

from pathlib import Path

import pytest

from benchmarks.compare.llama_tools import (
    ToolOutputError,
    batched_command,
    batched_decode_tokens_per_s,
    bench_command,
    bench_tokens_per_s,
    perplexity,
    system_info,
)
from benchmarks.compare.points import Point, Work

BENCH = (
    '{"build_number": 1, "n_prompt": 512, "avg_ts": 800.5, "samples_ns": [1, 2, 3],"samples_ts": [790.0, 811.5, 800.0]}'
)
BATCHED = """
main: n_kv_max = 768
{"n_kv_max": 768, "pp": 128, "tg": 64, "pl": 4, "n_kv": 768, "speed_pp": 900.1, "t_tg": 0.8, "speed_tg": 310.0}
{"n_kv_max": 768, "pp": 128, "tg": 64, "pl": 4, "n_kv": 768, "speed_pp": 900.1, "t_tg": 0.8, "speed_tg": 320.0}
llama_perf_context_print: load time = 1 ms
"""
PERPLEXITY = """
0.03.957.800 I system_info: n_threads = 2 (n_threads_batch = 2) / 2 | CPU : AVX512 = 1 | AMX_INT8 = 1 |
0.03.964.997 I perplexity: calculating perplexity over 7 chunks, n_ctx=256, batch_size=256, n_seq=1
[1]18.2,[2]19.1
0.26.253.136 I Final estimate: PPL = 21.5009 +/- 1.80242
"""


def test_the_median_repetition_counts() -> None:
    assert bench_tokens_per_s(f"loading\n{BENCH}\n") == 800.0


@pytest.mark.parametrize("output", ["", "error: no model", f"{BENCH}\n{BENCH}"])
def test_not_one_result_is_told(output: str) -> None:
    with pytest.raises(ToolOutputError, match="where one was asked for"):
        bench_tokens_per_s(output)


def test_of_many_sequences_decoding_alone_counts() -> None:
    assert batched_decode_tokens_per_s(BATCHED) == 315.0


def test_a_batch_without_result_is_told() -> None:
    with pytest.raises(ToolOutputError, match="printed no result"):
        batched_decode_tokens_per_s("failed to load")


def test_perplexity_comes_with_its_chunks() -> None:
    assert perplexity(PERPLEXITY) == (21.5009, 7)
    assert "AMX_INT8 = 1" in system_info(PERPLEXITY)


def test_no_perplexity_is_told() -> None:
    with pytest.raises(ToolOutputError, match="no final estimate"):
        perplexity("perplexity: you need at least 512 tokens")


def test_decoding_begins_behind_the_same_context_as_ours() -> None:
    command = bench_command(Path("b"), Path("m"), Point(Work.DECODE, 1), threads=2, repetitions=3)

    assert command[-6:] == ["-p", "0", "-n", "64", "-d", "128"]


def test_a_prefill_decodes_nothing() -> None:
    command = bench_command(Path("b"), Path("m"), Point(Work.PREFILL, 512), threads=2, repetitions=3)

    assert command[-4:] == ["-p", "512", "-n", "0"]


def test_a_batch_has_room_for_all_its_sequences_and_is_repeated() -> None:
    command = batched_command(Path("b"), Path("m"), Point(Work.DECODE, 16), threads=2, repetitions=2)

    assert command[command.index("-c") + 1] == str(16 * 192)
    assert command[command.index("-npl") + 1] == "16,16"
