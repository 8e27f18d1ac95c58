"""Writes a GGUF model as a folder in Hugging Face's layout, its weights dequantised to bf16, for vLLM.

    DIR/vllm/bin/python gguf_to_hugging_face.py model.gguf FOLDER

Runs in the environment of a peer, not in ours: it needs transformers, accelerate and gguf.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(source: Path, target: Path) -> None:
    """Converts."""
    folder, name = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    # They remember where they came from, and would refuse to be saved or be loaded as something quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
