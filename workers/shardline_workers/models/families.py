"""The families that can be served. A new one is a new entry here, not a new class."""

from types import MappingProxyType

from shardline_workers.kernels.operands import RotaryPairing
from shardline_workers.models.family_spec import FamilySpec
from shardline_workers.weights.tensor_names import GGUF_LLAMA, HUGGING_FACE_LLAMA

LLAMA = FamilySpec(
    name="llama",
    hugging_face_architectures=("LlamaForCausalLM",),
    hugging_face_names=HUGGING_FACE_LLAMA,
    hugging_face_settings=MappingProxyType(
        {
            "hidden_act": ("silu", None),
            "attention_bias": (False, None),
            "mlp_bias": (False, None),
            "sliding_window": (None,),
            "partial_rotary_factor": (1.0, None),
            "quantization_config": (None,),
        }
    ),
    gguf_architectures=("llama",),
    gguf_names=GGUF_LLAMA,
    gguf_settings=MappingProxyType({"expert_count": (0, None), "attention.sliding_window": (0, None)}),
    gguf_pairing=RotaryPairing.NEIGHBOURS,
)

FAMILIES = (LLAMA,)
