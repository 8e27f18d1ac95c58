"""Traces follow the standard variables; without them nothing is even imported."""

import builtins
import logging
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from shardline_cluster.telemetry.otel_tracer import OtelTracer
from shardline_cluster.telemetry.tracer_choice import open_tracer, wanted_exporter
from shardline_cluster.telemetry.tracing import NoTracer

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, ""),
        (ENDPOINT, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, ""),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " ", "OTEL_TRACES_EXPORTER": ""}, ""),
    ],
)
def test_the_variables_decide(environment: Mapping[str, str], wanted: str) -> None:
    assert wanted_exporter(environment) == wanted


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_both_protocols_of_otlp_are_there(protocol: str) -> None:
    tracer = open_tracer("router", ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol})

    assert isinstance(tracer, OtelTracer)
    tracer.close()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin', but only otlp, console and none"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'"),
    ],
)
def test_what_cannot_be_followed_is_one_warning_and_no_traces(
    environment: Mapping[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    tracer = open_tracer("router", environment)

    assert isinstance(tracer, NoTracer)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert words in caplog.text


def test_a_missing_package_is_one_warning_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = builtins.__import__

    def refuse(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return found(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "shardline_cluster.telemetry.otel_tracer")
    monkeypatch.delattr("shardline_cluster.telemetry.otel_tracer")

    tracer = open_tracer("replica", ENDPOINT)

    assert isinstance(tracer, NoTracer)
    assert len(caplog.records) == 1
    assert "pip install '.[otel]'" in caplog.text


@pytest.mark.process
def test_without_the_variables_no_exporter_is_loaded() -> None:
    code = (
        "import sys, shardline_cluster.router.router_process, shardline_cluster.replica.replica_process\n"
        "from shardline_cluster.telemetry.tracer_choice import open_tracer\n"
        "open_tracer('router', {})\n"
        "print([n for n in sys.modules if n.startswith('opentelemetry.exporter') or n.endswith('otel_tracer')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert told.stdout.strip() == "[]"
