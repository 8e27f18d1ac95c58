"""Everything about a model that is not a tensor: what a router needs to know of it."""

from dataclasses import dataclass, field

from shardline_workers.text.chat_template import ChatTemplate
from shardline_workers.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What counts where a client says nothing, see generation_config; None: the protocol's own value."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A model's text side, loaded without torch."""

    name: str
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None  # None: a base model
    eos_ids: frozenset[int]
    max_model_len: int  # context that the model was made for, in tokens
    vocab_size: int  # rows of the embedding; may be more than the tokenizer has
    weights_digest: str  # 16 hexadecimal digits
    defaults: SamplingDefaults = field(default_factory=SamplingDefaults)
