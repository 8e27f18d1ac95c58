"""Which GPUs this machine has, by the driver's own files."""

from pathlib import Path

from shardline_cluster.controller.local_cards import local_cards


def test_each_card_is_told_by_its_model(tmp_path: Path) -> None:
    for bus, model in (("0000:02:00.0", "NVIDIA L4"), ("0000:01:00.0", "NVIDIA H100 80GB HBM3")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 42\n")

    assert local_cards(tmp_path) == ("NVIDIA H100 80GB HBM3", "NVIDIA L4")


def test_a_machine_without_the_driver_has_none(tmp_path: Path) -> None:
    assert local_cards(tmp_path / "absent") == ()
