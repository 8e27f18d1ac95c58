"""What our engine is asked to load, and within which bounds."""

from dataclasses import dataclass, field

from shardline_workers.files.model_source import ModelFiles
from shardline_workers.parallel.expert_placement import PlacementWish
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sampling_bounds import MAX_LOGPROBS


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What to load and within which bounds. None means: as much as the model and the machine allow."""

    files: ModelFiles
    device: str = "cpu"
    dtype: str = "auto"  # or float32, float64, bfloat16, float16: these are the reference kernels'
    kernels: str = "auto"  # or native, reference
    max_model_len: int | None = None  # tokens of prompt and output together
    max_num_seqs: int = 16
    max_num_batched_tokens: int = 512
    kv_cache_tokens: int | None = None
    kv_cache_dtype: str = "auto"  # or bfloat16, int8; auto is bfloat16 in native code, the dtype of the reference
    block_size: int | None = None  # tokens; None is what the kernels like best
    enable_prefix_caching: bool = True
    max_logprobs: int = MAX_LOGPROBS
    plan: ParallelPlan = field(default_factory=ParallelPlan)
    expert_placement: PlacementWish = field(default_factory=PlacementWish)
    ranks_on_host: int = 1  # of this replica
    replicas_on_host: int = 1  # they share the cores evenly, and ranks those of their replica
    memory_sharers: int | None = (
        None  # replicas that are still to share the memory, this one too; None: all on the host
    )
    memory_taken_bytes: int = 0  # by replicas that are there already

    def __post_init__(self) -> None:
        for name in (
            "max_num_seqs",
            "max_num_batched_tokens",
            "block_size",
            "ranks_on_host",
            "replicas_on_host",
            "memory_sharers",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.memory_taken_bytes < 0:
            raise ValueError(f"memory_taken_bytes is {self.memory_taken_bytes}; it must be at least 0")
        if self.max_logprobs < 0:
            raise ValueError(f"max_logprobs is {self.max_logprobs}; it must be at least 0")
