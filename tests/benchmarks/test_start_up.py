from typing import Any

from benchmarks.start_up import parse_arguments, summary


def a_start(start: str, total_s: float, weights_s: float, **changes: Any) -> dict[str, Any]:
    return {
        "launcher": "local",
        "kv_cache_tokens": None,
        "start": start,
        "total_s": total_s,
        "phases_s": {"Redis": 0.1, "replica's weights": weights_s},
        "cpu_s": total_s / 2,
        "engine": {"weights_bytes": 1, "kv_cache_bytes": 2},
        "memory": {"total_pss_mib": 100 * total_s},
        **changes,
    }


def test_each_kind_of_start_has_its_medians() -> None:
    starts = [
        a_start("first", 30, 2),
        a_start("second", 5, 0.1),
        a_start("first", 40, 3),
        a_start("second", 9, 0.3),
        a_start("second", 6, 0.2),
        a_start("second", 12, 0.2, launcher="ray"),
    ]

    first, second, ray = summary(starts)

    assert (first["start"], first["total_s"], first["total_s_range"]) == ("first", 35, [30, 40])
    assert (second["total_s"], second["phases_s"]["replica's weights"], second["total_pss_mib"]) == (6, 0.2, 600)
    assert second["cpu_s"] == 3
    assert (ray["launcher"], ray["total_s"]) == ("ray", 12)


def test_both_launchers_are_measured_unless_one_is_named() -> None:
    assert parse_arguments([]).launchers == ["local", "ray"]
    assert parse_arguments(["--launchers", "local", "--kv-cache-tokens", "1024", "8192"]).kv_cache_tokens == [
        1024,
        8192,
    ]
