from pathlib import Path

import pytest

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from tests.workers.tiny_checkpoint import tiny_config


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [
        ({"quant_method": "awq", "bits": 4}, r"\(AWQ\)"),
        ({"quant_method": "gptq", "bits": 4}, r"\(GPTQ\)"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, r"\(FP8\)"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, r"\(bitsandbytes\)"),
        ({"load_in_8bit": True}, r"\(bitsandbytes\)"),
        ({"quant_method": "compressed-tensors"}, r"\(compressed-tensors\)"),
        ({"quant_method": "novel"}, r"\(quant_method novel\)"),
        ({"bits": 4}, r"\(an unknown scheme\)"),
        (["awq"], r"\(an unknown scheme\)"),
    ],
    ids=str,
)
def test_a_quantised_checkpoint_is_refused_by_its_schemes_name_with_what_works_instead(
    quantisation: object, name: str
) -> None:
    config = HuggingFaceConfig(ModelFacts(Path("m/config.json"), tiny_config() | {"quantization_config": quantisation}))

    with pytest.raises(ModelFileError, match=rf"m/config\.json: quantization_config {name}: .*a GGUF file of it: Q4_0"):
        config.family()


def test_a_quantised_checkpoint_of_an_unknown_family_is_refused_for_both_reasons_in_turn() -> None:
    values = tiny_config() | {"architectures": ["MambaForCausalLM"], "quantization_config": {"quant_method": "awq"}}

    with pytest.raises(ModelFileError, match="AWQ"):
        HuggingFaceConfig(ModelFacts(Path("m/config.json"), values)).family()

    with pytest.raises(ModelFileError, match="MambaForCausalLM"):
        HuggingFaceConfig(ModelFacts(Path("m/config.json"), values | {"quantization_config": None})).family()
