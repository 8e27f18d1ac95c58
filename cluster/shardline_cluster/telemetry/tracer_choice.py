"""Whether this process records spans: as the standard variables say, and nothing at all where none of them is set."""

import logging
from collections.abc import Mapping

from shardline_cluster.telemetry.tracing import NoTracer, Tracer

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

log = logging.getLogger(__name__)


def open_tracer(process: str, environment: Mapping[str, str]) -> Tracer:
    """The tracer that the environment asks for. What it cannot have is told once, and costs no requests."""
    wanted = wanted_exporter(environment)
    if not wanted:
        return NoTracer()
    try:
        # Imported here: nobody who wants no traces pays for it, or needs it.
        from shardline_cluster.telemetry.otel_tracer import OtelTracer, exporter_of

        return OtelTracer(process, exporter_of(wanted, _first(PROTOCOLS, environment) or "http/protobuf"))
    except ImportError as error:
        log.warning("no traces: the OTEL_* variables ask for them, but %s; pip install '.[otel]' brings it", error.msg)
    except Exception as error:
        log.warning("no traces: the OTEL_* variables cannot be followed: %s", error)
    return NoTracer()


def wanted_exporter(environment: Mapping[str, str]) -> str:
    """The exporter's name, or nothing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    named = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if not named:
        return "otlp" if _first(ENDPOINTS, environment) else ""
    return "" if named == "none" else named


def _first(names: tuple[str, ...], environment: Mapping[str, str]) -> str:
    return next((value for name in names if (value := environment.get(name, "").strip())), "")
