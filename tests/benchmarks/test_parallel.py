import json
from pathlib import Path

import pytest

from benchmarks.parallel import PARTS, main, parse_arguments


def test_all_parts_are_measured_unless_some_are_named() -> None:
    assert parse_arguments([]).parts == list(PARTS)
    assert parse_arguments(["channel"]).parts == ["channel"]


def test_a_part_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["chanel"])

    assert "there is no part 'chanel': name some of channel, collectives, bubble" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.usefixtures("native_library")
def test_the_short_form_of_the_channel_has_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["channel", "--short", "--out-folder", str(tmp_path)])

    told = json.loads((tmp_path / "parallel_channel.json").read_text())
    assert told == json.loads(capsys.readouterr().out)
    assert told["encoding"]["32 decodes"]["frame_bytes"] < 300
    assert [run["is_loaded"] for run in told["transports"]] == [False, True]
    for run in told["transports"]:
        for transport in ("shared_memory", "tcp"):
            assert run[transport]["num_steps"] == 10
            assert 0 < run[transport]["one_way_us"]["p50"] <= run[transport]["round_trip_us"]["p90"]
