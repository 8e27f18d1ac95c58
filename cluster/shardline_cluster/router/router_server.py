"""A router's gRPC server: the services, health, reflection, limits, and the order in which it goes away."""

import asyncio
import logging
from collections.abc import Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from shardline_cluster.access.gate import Gate
from shardline_cluster.access.memory_rate_limiter import MemoryRateLimiter
from shardline_cluster.access.rate_limiter import RateLimiter
from shardline_cluster.errors import ConfigurationError, ShuttingDownError
from shardline_cluster.router.admin.admin_service import AdminService
from shardline_cluster.router.admin.administration import Administration
from shardline_cluster.router.admission.key_charges import KeyCharges
from shardline_cluster.router.generation import Generation
from shardline_cluster.router.generation_service import GenerationService
from shardline_cluster.router.malformed_requests import MAX_REQUEST_BYTES, MalformedRequests
from shardline_cluster.router.model_catalogue import ModelCatalogue
from shardline_cluster.router.model_directory import ModelDirectory
from shardline_cluster.router.open_inference.generation import OpenInferenceGeneration
from shardline_cluster.router.open_inference.models import OpenInferenceModels
from shardline_cluster.router.open_inference.service import OpenInferenceService
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.router.router_health import RouterHealth
from shardline_cluster.router.router_telemetry import RouterTelemetry
from shardline_cluster.router.server_credentials import server_credentials
from shardline_cluster.router.service_shell import ServiceShell
from shardline_cluster.router.text_threads import TextThreads
from shardline_cluster.telemetry.metrics_server import Health
from shardline_protos import admin_pb2, open_inference_pb2
from shardline_protos import generation_pb2 as pb
from shardline_protos.admin_pb2_grpc import add_AdminServicer_to_server
from shardline_protos.generation_pb2_grpc import add_GenerationServicer_to_server
from shardline_protos.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

log = logging.getLogger(__name__)

GENERATION_SERVICE = pb.DESCRIPTOR.services_by_name["Generation"].full_name
ADMIN_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name
OPEN_INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES = (GENERATION_SERVICE, ADMIN_SERVICE, OPEN_INFERENCE_SERVICE)
SERVED_NAMES = ("", *SERVICES)  # the empty name is the whole server
MAX_NAME_BYTES = 4096  # of a question that needs no key: all of them only name something
REQUEST_BYTES = dict.fromkeys(SERVICES, MAX_REQUEST_BYTES) | dict.fromkeys(
    (HEALTH_SERVICE, reflection.SERVICE_NAME), MAX_NAME_BYTES
)
MAX_MESSAGE_BYTES = 16 << 20
STOP_GRACE_S = 2.0  # for handlers to tell their clients where to go
PING_AFTER_MS = 60_000  # without a word of a client
PING_TIMEOUT_MS = 20_000


def keepalive_options(*, ping_after_ms: int, ping_timeout_ms: int) -> tuple[tuple[str, int], ...]:
    """A client whose network went away says nothing, and its requests would go on for nobody: it is pinged."""
    return (
        ("grpc.keepalive_time_ms", ping_after_ms),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),  # counts as well, and is a minute unless told otherwise
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients may ping so often
        ("grpc.http2.max_ping_strikes", 0),
    )


_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", 2 * MAX_REQUEST_BYTES),  # so that we can say ourselves what is too long
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    *keepalive_options(ping_after_ms=PING_AFTER_MS, ping_timeout_ms=PING_TIMEOUT_MS),
)


class RouterServer:
    """Serves a directory of models over gRPC."""

    def __init__(
        self,
        config: RouterConfig,
        directory: ModelDirectory,
        gate: Gate,
        *,
        administration: Administration | None = None,
        limiter: RateLimiter | None = None,
        telemetry: RouterTelemetry | None = None,
    ) -> None:
        """Without an administration there is no Admin service; without a limiter this router alone counts."""
        self._directory = directory
        self._gate = gate
        self._administration = administration
        self._telemetry = telemetry or RouterTelemetry()
        self._threads = TextThreads()
        patience_s = 3 * config.terms.call_timeout_ms / 1000
        self._charges = KeyCharges(limiter or MemoryRateLimiter(), patience_s=patience_s)
        self._health = RouterHealth(directory, SERVED_NAMES, self._telemetry.metrics)
        self._server = grpc.aio.server(
            options=[*_OPTIONS, ("grpc.so_reuseport", int(config.reuse_port))],
            interceptors=[MalformedRequests(REQUEST_BYTES, on_refused=self._telemetry.metrics.malformed)],
        )
        self._add_services()
        self._config = config

    def _add_services(self) -> None:
        generation = Generation(self._directory, self._threads, self._telemetry, charges=self._charges)
        catalogue = ModelCatalogue(self._directory, self._threads)
        shell = ServiceShell(self._gate, self._telemetry)
        service = GenerationService(generation, catalogue, shell)
        add_GenerationServicer_to_server(service, self._server)  # type: ignore[no-untyped-call]
        open_inference = OpenInferenceService(
            OpenInferenceGeneration(generation, self._directory), OpenInferenceModels(catalogue, self._directory), shell
        )
        add_GRPCInferenceServiceServicer_to_server(open_inference, self._server)  # type: ignore[no-untyped-call]
        if self._administration is not None:
            admin = AdminService(self._administration, shell)
            add_AdminServicer_to_server(admin, self._server)  # type: ignore[no-untyped-call]
        add_HealthServicer_to_server(self._health.servicer, self._server)
        names = [name for name in SERVICES if name != ADMIN_SERVICE or self._administration is not None]
        reflection.enable_server_reflection((*names, HEALTH_SERVICE, reflection.SERVICE_NAME), self._server)

    async def start(self) -> int:
        """Listens; returns the port.

        Raises:
            ConfigurationError: the address cannot be had, or the files of TLS will not do.
        """
        port = self._listen()
        self._directory.start()
        await self._health.start()
        await self._server.start()
        return port

    def _listen(self) -> int:
        address, tls, local = self._config.address, self._config.tls, self._config.local_socket
        credentials = None if tls is None else server_credentials(tls)
        try:
            if local:
                self._server.add_insecure_port(f"unix:{local}")
            if credentials is None:
                return int(self._server.add_insecure_port(address))
            return int(self._server.add_secure_port(address, credentials))
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {address}: the port is taken, or this machine has no such address; "
                "choose another --grpc-port (0 takes any free one) or --host"
            ) from error

    async def stop(self) -> None:
        """Goes away within seconds: no new calls, then every open stream is told to go on elsewhere, then the rest."""
        await self._health.stop()
        stopping = asyncio.get_running_loop().create_task(self._server.stop(STOP_GRACE_S))
        await asyncio.sleep(0)  # the server refuses new calls from here on
        await self._directory.close(ShuttingDownError("this router shuts down: go on through another one"))
        await stopping
        await self._charges.close()
        self._threads.close()

    def health(self) -> Health:
        """For `/health`; may be called in any thread."""
        return self._health.health()
