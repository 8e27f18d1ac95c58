"""What is to be served: a model in a format, and the requests that it must have room for."""

from dataclasses import dataclass

from shardline_workers.sizing.model_shape import ModelShape
from shardline_workers.sizing.stored_bytes import StoredBytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests at once, each as long as it can be."""

    context: int  # tokens of prompt and output together
    concurrency: int = 1
    kv_dtype: str = "bfloat16"
    batched_tokens: int = 2048  # of a step, prefill included

    def __post_init__(self) -> None:
        for name, number in (("context", self.context), ("concurrency", self.concurrency)):
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNeeds:
    """Both together."""

    shape: ModelShape
    stored: StoredBytes
    workload: Workload
