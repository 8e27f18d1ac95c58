"""The bounds that a scheduler keeps, and whether a request can ever be served within them."""

from dataclasses import dataclass

from shardline_workers.engine import EngineRequest, RequestTooLargeError

# Tokens of prompts in one step whose log-probabilities are told: each takes a row of logits, as wide as a vocabulary.
MAX_SCORED_TOKENS = 32
_LEAST_1 = (
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "num_blocks",
    "block_size",
    "max_scored_tokens",
    "max_in_flight",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerLimits:
    """Bounds of one engine, checked at birth."""

    max_model_len: int  # tokens of prompt and output together
    max_num_seqs: int  # sequences that run at once
    max_num_batched_tokens: int  # tokens of one step
    num_blocks: int
    block_size: int  # tokens
    max_scored_tokens: int = MAX_SCORED_TOKENS  # of one step
    enable_prefix_caching: bool = True  # False: blocks are shared within a request only
    max_in_flight: int = 1  # steps that are under way at once: as many as a pipeline has stages

    def __post_init__(self) -> None:
        for name in _LEAST_1:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, less than max_num_seqs ="
                f" {self.max_num_seqs}: a step must hold a token of each running sequence; raise the first or lower"
                " the second"
            )

    @property
    def max_sampled_rows(self) -> int:
        """Rows of logits that a step computes at most."""
        return self.max_num_seqs + self.max_scored_tokens

    @property
    def max_blocks_per_seq(self) -> int:
        """Blocks of the longest sequence."""
        return -(-self.max_model_len // self.block_size)

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.block_size

    def check(self, request: EngineRequest) -> None:
        """Passes a request that can be served when nothing else is there.

        Raises:
            RequestTooLargeError: prompt and output never fit.
            ValueError: there is no prompt, or nothing may be generated.
        """
        prompt, output = len(request.prompt_ids), request.sampling.max_tokens
        if prompt == 0:
            raise ValueError(f"request {request.request_id!r} has an empty prompt; it needs at least one token")
        if output < 1:
            raise ValueError(f"max_tokens is {output}; it must be at least 1")
        bound = min(self.max_model_len, self.kv_cache_tokens)
        if prompt + output > bound:
            raise RequestTooLargeError(
                f"a prompt of {prompt} tokens and max_tokens = {output} make {prompt + output}, more than the {bound}"
                f" that this engine holds (max_model_len {self.max_model_len}, KV cache {self.kv_cache_tokens}"
                " tokens); shorten the prompt or lower max_tokens"
            )
