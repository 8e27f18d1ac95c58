"""Everything on this machine: started in order, kept, and taken along at the end.

    serve ─┬─ Redis                    unless it is somebody else's
           ├─ Ray head ── GCS …        ┐
           ├─ Ray node ── the actors   │ launcher ray; head and node unless another cluster is joined
           ├─ controller's keeper      ┘
           │   or: controller          launcher local; replicas live in this process's lifetime
           └─ router × N               on one port

Starting goes from what others need to what needs others; what needs nothing of each other starts at once. Every child
is restarted when it ends; none outlives this process, after its SIGKILL too.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.ray_controller_config import HEAD_DOES_NOT_ANSWER, RayControllerConfig
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.queue.server_check import check_server
from shardline_cluster.router.router_config import RouterConfig
from shardline_cluster.serve.commands import DRAIN_S, Commands, local_sockets
from shardline_cluster.serve.ports import free_port
from shardline_cluster.serve.private_folder import RAY_FOLDER, PrivateFolder
from shardline_cluster.serve.ray_plan import HEAD_IP, NODE_IP, RECONNECT_VARIABLES, STARTED, RayPlan
from shardline_cluster.serve.redis_child import EmbeddedRedis
from shardline_cluster.serve.router_health import wait_until_serving
from shardline_cluster.serve.serve_options import LauncherKind, ServeOptions
from shardline_cluster.serve.start_times import StartTimes
from shardline_cluster.serve.supervised_child import ChildFailedError, ChildPlan, SupervisedChild
from shardline_cluster.telemetry.metrics_server import host_and_port
from shardline_cluster.telemetry.telemetry_config import TelemetryConfig

RAY_START_S = 90.0  # a loaded machine needs long; a quiet one 3 s
ROUTER_START_S = 60.0
REDIS_WATCH_PERIOD_S = 1.0  # while routers and replicas start
HEAD_SETTLE_S = 30.0  # a head that is younger is still coming up, and not to be blamed for silence


class LocalCluster:
    """The processes of one `serve`. `start`, `kept` while it serves, and `stop`, whatever happened."""

    def __init__(
        self,
        options: ServeOptions,
        *,
        folder: PrivateFolder,
        port: int,
        say: Callable[[str], None],
        times: StartTimes,
    ) -> None:
        self._options = options
        self._times = times
        self._folder = folder
        self._port = port
        self._say = say
        self._commands = Commands(logs=folder.make("logs"))
        self._telemetry = _with_port(options)
        self._redis = EmbeddedRedis(options.durability, say=say) if options.redis_url is None else None
        self._ray: RayPlan | None = None
        self._head: SupervisedChild | None = None
        self._node: SupervisedChild | None = None
        self._controller: SupervisedChild | None = None
        self._routers: list[SupervisedChild] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._replacing: asyncio.Task[None] | None = None  # of Ray's head
        self.controller_began_s = 0.0  # in the start's times

    @property
    def has_new_redis(self) -> bool:
        """Whether Redis is this start's own, begun empty: nobody has ever written there."""
        return self._redis is not None

    @property
    def redis_url(self) -> str:
        """Where everybody finds Redis; may hold a password."""
        return self._redis.url if self._redis is not None else str(self._options.redis_url)

    @property
    def endpoint(self) -> str:
        """Where clients on this machine find the routers."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._options.host, self._options.host)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    @property
    def local_endpoints(self) -> tuple[str, ...]:
        """Where commands of this user find the routers without TLS; empty where everybody speaks plain text."""
        sockets = local_sockets(self._socket_stem(), self._options.num_routers)
        return tuple(f"unix:{socket}" for socket in sockets if socket)

    @property
    def log_folder(self) -> Path:
        """Where the logs of all processes lie, those of replicas under `replicas` beside it or with Ray's."""
        return self._commands.logs

    @property
    def metrics_address(self) -> str:
        """Where the controller serves metrics; empty where it chooses the port itself."""
        port = self._telemetry.metrics_port
        return host_and_port(self._telemetry.told_host, port) if port else ""

    async def start_redis(self) -> None:
        """Starts Redis, or looks whether a given one will do.

        Raises:
            ShardlineError: it cannot be started, does not answer, or is set up so that promises would break.
        """
        if self._redis is not None:
            await self._redis.start()
            self._keep(self._redis.keep())
        await check_server(self.redis_url, self._options.durability, prefix=self._options.redis_prefix)

    async def watch_redis(self) -> None:
        """Never ends by itself. Where Redis can keep nothing, on a full disk say, nothing gets ready, and nobody else
        would say why.

        Raises:
            ConfigurationError: that is so; the message says how to mend it.
        """
        while True:
            await asyncio.sleep(REDIS_WATCH_PERIOD_S)
            with suppress(QueueUnavailableError):
                await check_server(self.redis_url, self._options.durability, prefix=self._options.redis_prefix)

    async def start_fleet(self) -> None:
        """Starts what starts replicas.

        Raises:
            ChildFailedError: Ray did not come up.
        """
        if self._options.launcher is LauncherKind.LOCAL:
            folder = self._folder.make("replicas")
            plan = self._commands.local_controller(self._controller_config(), folder=folder, owner_pid=os.getpid())
        else:
            if self._options.ray_address is None:
                await self._start_ray()
            plan = self._ray_controller()
        self.controller_began_s = self._times.now_s
        self._controller = self._child(plan)
        self._controller.start()
        self._keep(self._controller.keep())

    async def start_routers(self) -> None:
        """Starts the routers and waits until one of them serves.

        Raises:
            ChildFailedError: none did.
        """
        config = RouterConfig(
            host=self._options.host,
            port=self._port,
            redis_url=self.redis_url,
            prefix=self._options.redis_prefix,
            terms=self._options.terms,
            reuse_port=True,
            access=self._options.access,
            tls=self._options.tls,
            local_socket=self._socket_stem(),
            cache_folder=self._options.cache_folder,
            cluster=self._options.name,
            telemetry=replace(self._telemetry, metrics_port=0),
        )
        with self._times.phase("routers"):
            for plan in self._commands.routers(config, self._options.num_routers):
                self._routers.append(self._child(plan))
                self._routers[-1].start()
                self._keep(self._routers[-1].keep())
            if not await wait_until_serving((self.local_endpoints or (self.endpoint,))[0], within_s=ROUTER_START_S):
                told = self._routers[0].last_words()
                raise ChildFailedError(f"no router served within {ROUTER_START_S:.0f} s:\n{told}")

    async def kept(self) -> None:
        """Waits for ever, or until keeping a child fails, which nothing should make it do; raises what it raised."""
        done, _ = await asyncio.wait(self._keeping, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Stops everything, in this order.

        1. Routers: first nobody new may come in; clients keep their cursors and can resume elsewhere.
        2. The controller: it lets the replicas drain, which needs Redis, and Ray to reach them.
        3. Ray's node and head: what has not drained by now is killed with them.
        4. Redis: everybody who writes is gone; an external one, and what lies in it, stays.
        """
        await _stop(self._routers)
        await _stop([self._controller])
        await _stop([self._node, self._head])
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        if self._redis is not None:
            await self._redis.stop()

    # --- Ray -----------------------------------------------------------------------------------------------------

    async def _start_ray(self) -> None:
        self._ray = plan = RayPlan(
            ray_command=(sys.executable, "-P", "-m", "ray.scripts.scripts"),
            folder=self._folder.make(RAY_FOLDER),
            gcs_port=free_port(HEAD_IP),
            client_port=free_port(HEAD_IP),
        )
        plan.write_token()
        self._say(f"starting Ray: head at {plan.address}, node at {NODE_IP}")
        began_s = self._times.now_s
        self._head = self._child(self._commands.ray_head(plan))
        self._head.start()
        await self._head.until(plan.head_takes_nodes, within_s=RAY_START_S)
        self._node = self._child(self._commands.ray_node(plan))
        self._node.start()
        await self._head.printed(STARTED, within_s=RAY_START_S)
        self._keep(self._head.keep())
        self._times.ended("Ray head", began_s=began_s)
        await self._node.printed(STARTED, within_s=RAY_START_S)
        self._keep(self._node.keep())
        self._times.ended("Ray node", began_s=began_s)

    def _ray_controller(self) -> ChildPlan:
        address = self._ray.address if self._ray is not None else str(self._options.ray_address)
        config = RayControllerConfig(
            controller=self._controller_config(),
            address=address,
            namespace=f"shardline-{self._options.redis_prefix}-{self._options.name}",
            node_ip=NODE_IP if self._ray is not None else self._options.ray_node_ip,
            drain_at_exit_s=DRAIN_S,
        )
        environment = self._ray.environment() if self._ray is not None else RECONNECT_VARIABLES
        return self._commands.ray_controller(config, environment, on_exit=self._controller_ended)

    def _controller_ended(self, code: int) -> None:
        """The keeper of the controller's actor also probes Ray's head; a head that hangs is replaced."""
        if code == HEAD_DOES_NOT_ANSWER and self._head is not None and self._head.up_for_s > HEAD_SETTLE_S:
            self._say("Ray's head hangs: it is replaced")
            self._replacing = asyncio.create_task(self._head.replace())

    # --- pieces --------------------------------------------------------------------------------------------------

    def _controller_config(self) -> ControllerConfig:
        return ControllerConfig(
            redis_url=self.redis_url,
            prefix=self._options.redis_prefix,
            terms=self._options.terms,
            cluster=self._options.name,
            replan=self._options.replan,
            telemetry=self._telemetry,
        )

    def _socket_stem(self) -> str:
        """Only this user opens the folder: what is said there needs no TLS, and no certificate of his."""
        return "" if self._options.tls is None else str(self._folder.make("routers") / "r")

    def _child(self, plan: ChildPlan) -> SupervisedChild:
        return SupervisedChild(plan, say=self._say)

    def _keep(self, keeping: Coroutine[Any, Any, None]) -> None:
        self._keeping.append(asyncio.create_task(keeping))


def _with_port(options: ServeOptions) -> TelemetryConfig:
    """The controller's telemetry, on a port that it keeps over its restarts.

    In a joined Ray cluster it may choose one: a controller that the last `serve` left there is found again by its
    configuration, and must not be replaced for the sake of another port.
    """
    telemetry = options.telemetry
    if telemetry.metrics_port or options.ray_address is not None:
        return telemetry
    return replace(telemetry, metrics_port=free_port(telemetry.metrics_host))


async def _stop(children: Iterable[SupervisedChild | None]) -> None:
    await asyncio.gather(*(child.stop() for child in children if child is not None))
