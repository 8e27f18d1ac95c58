"""The models that a router can serve: which are deployed, their text sides, one queue and its streams for each lane.

Watches the deployments. A lane stays open when its deployment is gone, since its requests live on, and is closed when
they have ended and are kept no longer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from shardline_cluster.errors import (
    ConfigurationError,
    ModelNotLoadedError,
    QueueUnavailableError,
    ShardlineError,
    UnknownModelError,
    UnknownRequestError,
)
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_records import DeploymentRecords
from shardline_cluster.queue.request_ids import lane_of
from shardline_cluster.queue.request_queue import RequestQueue
from shardline_cluster.router.streams.lane_streams import unknown_request
from shardline_cluster.router.streams.token_streams import TokenStreams
from shardline_workers.text.text_model import TextModel

log = logging.getLogger(__name__)

_TextKey = tuple[str, str, str, str | None, str]

POLL_S = 1.0
RELOAD_PAUSE_S = 10.0  # before a model that could not be loaded is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLane:
    """A lane and the text side of its weights."""

    text: TextModel
    streams: TokenStreams


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A deployment that this router can serve."""

    deployment: Deployment
    lane: ServedLane

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and output together."""
        return self.deployment.max_model_len

    @property
    def text(self) -> TextModel:
        """The text side, with the context that is served."""
        return replace(self.lane.text, max_model_len=self.max_model_len)


class ModelDirectory:
    """Deployed models by name and lanes by name. `load` may take seconds and runs in a thread."""

    def __init__(
        self,
        records: DeploymentRecords,
        *,
        open_queue: Callable[[str], RequestQueue],
        load: Callable[[Deployment], TextModel],
        incarnation: str,
    ) -> None:
        self._records = records
        self._open_queue = open_queue
        self._load = load
        self._incarnation = incarnation
        self._deployments: Mapping[str, Deployment] | None = None  # None: the store has never answered
        self._texts: dict[_TextKey, TextModel] = {}
        self._lanes: dict[str, ServedLane] = {}  # by name
        self._failures: dict[str, tuple[_TextKey, str, float]] = {}  # by lane: why, and when to try again
        self._left_since: dict[str, float] = {}  # by lane without deployment: when it was last seen to be needed
        self._watching: asyncio.Task[None] | None = None
        self._store_answers = False

    def start(self) -> None:
        """Watches the store from now on."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self, error: ShardlineError) -> None:
        """Ends all streams with `error`, then the watching and the queues."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        all_streams = [lane.streams for lane in self._lanes.values()]
        await asyncio.gather(*(streams.close(error) for streams in all_streams))
        await asyncio.gather(*(streams.queue.close() for streams in all_streams))

    @property
    def available(self) -> bool:
        """Whether Redis answers: the store of deployments and every lane."""
        return self._store_answers and all(lane.streams.available for lane in self._lanes.values())

    def num_attaches(self) -> Mapping[str, int]:
        """How often logs were read, by lane; may be called in any thread."""
        return {name: lane.streams.num_attaches for name, lane in list(self._lanes.items())}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is deployed, in order."""
        return tuple(sorted(self._deployments or ()))

    def deployments(self) -> Mapping[str, Deployment]:
        """What is deployed, by name.

        Raises:
            QueueUnavailableError: the store has never answered.
        """
        if self._deployments is None:
            raise QueueUnavailableError("the deployments are not known yet, since Redis has not answered: try again")
        return self._deployments

    def find(self, name: str) -> ServedModel:
        """The model that a client means; no name at all means the only one.

        Raises:
            UnknownModelError: no deployment has this name.
            ModelNotLoadedError: this router cannot read its files yet.
            QueueUnavailableError: the store has never answered.
        """
        deployment = self.deployment(name)
        served = self.served(deployment)
        if served is None:
            raise ModelNotLoadedError(self._not_loaded(deployment))
        return served

    def deployment(self, name: str) -> Deployment:
        """The deployment that a client means; no name at all means the only one.

        Raises:
            UnknownModelError: no deployment has this name.
            QueueUnavailableError: the store has never answered.
        """
        deployments = self.deployments()
        if not name and len(deployments) == 1:
            name = next(iter(deployments))
        if name not in deployments:
            raise UnknownModelError(self._unknown(name))
        return deployments[name]

    def served(self, deployment: Deployment) -> ServedModel | None:
        """What was loaded for a deployment, or None."""
        text, lane = self._texts.get(_text_key(deployment)), self._lanes.get(deployment.lane)
        if text is None or lane is None:
            return None
        return ServedModel(deployment=deployment, lane=ServedLane(text=text, streams=lane.streams))

    def of_request(self, request_id: str) -> ServedLane:
        """The lane in which a request lives.

        Raises:
            InvalidRequestError: this is no request id.
            UnknownRequestError: this router knows no such lane.
            ModelNotLoadedError: this router cannot read the model's files yet.
            QueueUnavailableError: the store has never answered.
        """
        name = lane_of(request_id)
        lane = self._lanes.get(name)
        if lane is not None:
            return lane
        for deployment in _over_time(self.deployments()):
            if deployment.lane == name:
                raise ModelNotLoadedError(self._not_loaded(deployment))
        raise unknown_request(request_id)

    # --- watching ---

    async def _watch(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception:
                log.exception("looking for deployments failed and is tried again")
            await asyncio.sleep(POLL_S)

    async def refresh(self) -> None:
        """Reads the deployments once and loads what is new."""
        try:
            await self._records.refresh()
            self._deployments = self._records.values
            self._store_answers = True
        except QueueUnavailableError:
            self._store_answers = False
            return
        except ConfigurationError as error:
            log.error("the deployments in Redis cannot be read, so nothing changes: %s", error)
            return
        await asyncio.gather(*(self._serve(deployment) for deployment in _over_time(self._deployments)))
        await self._let_go(tuple(_over_time(self._deployments)))

    async def _serve(self, deployment: Deployment) -> None:
        text = self._texts.get(_text_key(deployment)) or await self._load_text(deployment)
        if text is not None and deployment.lane not in self._lanes:
            streams = TokenStreams(self._open_queue(deployment.lane), self._incarnation)
            self._lanes[deployment.lane] = ServedLane(text=text, streams=streams)
            streams.start()

    async def _let_go(self, deployed: Sequence[Deployment]) -> None:
        """Closes lanes without deployment once nothing has needed them for as long as ended requests are kept."""
        keys, lanes, now = {_text_key(one) for one in deployed}, {one.lane for one in deployed}, _now_s()
        self._texts = {key: text for key, text in self._texts.items() if key in keys}
        self._left_since = {name: self._left_since.get(name, now) for name in self._lanes if name not in lanes}
        for name, since in tuple(self._left_since.items()):
            if (lane := self._lanes.get(name)) is None:
                continue  # another look has closed it
            streams = lane.streams
            is_needed = await streams.is_needed()
            if name not in self._left_since:
                continue  # another look came in between: it is deployed again, or closed
            if is_needed:
                self._left_since[name] = now
            elif now - since > streams.queue.terms.retention_ms / 1000:
                del self._lanes[name], self._left_since[name]
                await streams.close(UnknownRequestError(f"the lane {name} is gone, and nothing was left in it"))
                await streams.queue.close()

    async def _load_text(self, deployment: Deployment) -> TextModel | None:
        now = _now_s()
        failed = self._failures.get(deployment.lane)
        if failed and failed[0] == _text_key(deployment) and now < failed[2]:
            return None
        try:
            text = await asyncio.to_thread(self._load, deployment)
        except (ValueError, OSError) as error:
            log.warning("cannot load the tokenizer of %s: %s", deployment.name, error)
            self._failures[deployment.lane] = (_text_key(deployment), str(error), now + RELOAD_PAUSE_S)
            return None
        self._failures.pop(deployment.lane, None)
        self._texts[_text_key(deployment)] = text
        return text

    # --- in words ---

    def _unknown(self, name: str) -> str:
        known = ", ".join(self.names) or "none"
        if not name:
            return f"model is empty, which is allowed only where one model is deployed; deployed are: {known}"
        return f"model {name[:200]!r} is not deployed; deployed are: {known}"

    def _not_loaded(self, deployment: Deployment) -> str:
        failed = self._failures.get(deployment.lane)
        if failed is None:
            return f"model {deployment.name} is being loaded by this router: try again in a second"
        return f"model {deployment.name} is deployed, but this router cannot load its tokenizer: {failed[1]}"


def _over_time(deployments: Mapping[str, Deployment]) -> Iterator[Deployment]:
    """Also as they were at lanes that they have left: requests there have not ended yet."""
    return (stage for deployment in deployments.values() for stage in deployment.over_time())


def _text_key(deployment: Deployment) -> _TextKey:
    """What of a deployment decides its text side."""
    options = deployment.options
    return (
        deployment.model,
        deployment.weights_digest,
        options.engine,
        options.chat_template,
        options.generation_config,
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
