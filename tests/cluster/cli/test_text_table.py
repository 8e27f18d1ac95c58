"""Tables of text."""

from shardline_cluster.cli.text_table import table


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() -> None:
    assert table(("A", "LONG"), [("wide", "x"), ("b", "")]) == "A     LONG\nwide  x\nb\n"
