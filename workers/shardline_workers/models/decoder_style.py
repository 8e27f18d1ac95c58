"""What a decoder is made of, beside its sizes: the choices in which families differ."""

from dataclasses import dataclass

from shardline_workers.kernels.operands import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderStyle:
    """The defaults are Llama's."""

    activation: Activation = Activation.SILU  # of the MLP's gate
    norms_heads: bool = False  # each head of queries and keys is normed before it turns
    norms_deltas: bool = False  # what a half layer gives is normed before it is added to the residual
