"""Checkpoints of Hugging Face whose weights are quantised: each scheme is refused by its name.

Their config.json has a `quantization_config`, whose `quant_method` names the scheme.
"""

from collections.abc import Mapping
from types import MappingProxyType

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "aqlm": "AQLM",
        "awq": "AWQ",
        "bitnet": "BitNet",
        "bitsandbytes": "bitsandbytes",
        "compressed-tensors": "compressed-tensors",
        "eetq": "EETQ",
        "fbgemm_fp8": "FP8 (FBGEMM)",
        "fp8": "FP8",
        "gptq": "GPTQ",
        "higgs": "HIGGS",
        "hqq": "HQQ",
        "modelopt": "ModelOpt",
        "mxfp4": "MXFP4",
        "quanto": "Quanto",
        "quark": "Quark",
        "torchao": "torchao",
    }
)


def refuse_quantised(config: ModelFacts) -> None:
    """Lets a config.json of a checkpoint in F32, F16 or BF16 pass.

    Raises:
        ModelFileError: the weights are quantised; the text names the scheme, and what works instead.
    """
    quantisation = config.values.get("quantization_config")
    if quantisation is None:
        return
    raise ModelFileError.about(
        config.path,
        f"quantization_config ({_scheme(quantisation)})",
        value=quantisation,
        bound="weights that are not quantised: such checkpoints cannot be read yet",
        remedy="Take the model's checkpoint in BF16 or F16, or a GGUF file of it: Q4_0 to Q8_0 and Q2_K to Q6_K are"
        " read as they are.",
    )


def _scheme(quantisation: object) -> str:
    method = quantisation.get("quant_method") if isinstance(quantisation, Mapping) else None
    if isinstance(method, str):
        return _NAMES.get(method, f"quant_method {method}")
    # Older files of bitsandbytes name no method.
    is_bitsandbytes = isinstance(quantisation, Mapping) and {"load_in_4bit", "load_in_8bit"} & set(quantisation)
    return "bitsandbytes" if is_bitsandbytes else "an unknown scheme"
