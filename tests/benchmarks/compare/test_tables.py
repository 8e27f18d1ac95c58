"""Tables for people."""

from functools import partial

from benchmarks.compare.tables import all_tables
from tests.benchmarks.compare.samples_of import samples_of


def test_only_what_was_measured_has_a_table_and_ours_comes_first() -> None:
    samples = [*samples_of("llama.cpp", [100.0, 110.0, 140.0]), *samples_of("shardline", [200.0])]

    lines = all_tables(samples).splitlines()

    assert lines[0].startswith("| engine to engine, tok/s | decode 1 | decode 4 |")
    assert lines[2] == "| shardline Q8_0 | 200 |  |  |  |  |"
    assert lines[3] == "| llama.cpp Q8_0 | 110 (100–140) |  |  |  |  |"
    assert lines[5].startswith("others cpu share: 0.005 (0 to 0.02)")
    assert "through the servers" not in "\n".join(lines)


def test_servers_stand_by_number_of_streams_with_all_their_figures() -> None:
    told = partial(samples_of, "vllm", part="servers", point="streams 4", format_name="BF16")
    samples = [*told([50.0]), *told([12.0], figure="first_token_p50_ms")]

    lines = all_tables(samples).splitlines()

    assert lines[2] == "| vllm BF16 | 4 | 50 |  | 12 |  |"
