"""How much room a decoder is given."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderRoom:
    """How large steps and caches are."""

    max_tokens: int  # of one step
    max_sampled: int  # rows of logits of one step
    max_len: int  # positions of a sequence
    num_blocks: int  # of the KV cache
    block_size: int  # tokens
