import pytest

from shardline_workers.files.hub_choice import HubFile, choose_files
from shardline_workers.files.hub_source import parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError

QUANTS = ["README.md", "tiny-Q4_0.gguf", "tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "mmproj-tiny-f16.gguf"]


def chosen(source: str, names: list[str]) -> list[str]:
    choice = choose_files(parse_hub_source(source), [HubFile(name=name, num_bytes=1) for name in names])
    return [file.name for file in choice.files]


def test_of_a_folder_only_what_is_needed_is_taken_and_the_weights_last() -> None:
    names = ["README.md", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx", "tokenizer.json", "config.json"]

    assert chosen("hf:org/x", names) == ["config.json", "tokenizer.json", "model.safetensors"]


def test_of_shards_all_are_taken_with_their_index() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]

    assert chosen("hf:org/x", ["config.json", "model.safetensors.index.json", "consolidated.safetensors", *shards]) == [
        "config.json",
        "model.safetensors.index.json",
        *shards,
    ]


def test_the_only_gguf_file_needs_no_name() -> None:
    assert chosen("hf:org/x", ["a.gguf", "mmproj-a.gguf"]) == ["a.gguf"]


@pytest.mark.parametrize("selection", ["tiny-Q4_K_M.gguf", "Q4_K_M", "q4_k_m"])
def test_one_of_several_gguf_files_is_named_by_file_or_type(selection: str) -> None:
    assert chosen(f"hf:org/x:{selection}", QUANTS) == ["tiny-Q4_K_M.gguf"]


def test_safetensors_go_before_gguf_where_nothing_is_named() -> None:
    both = ["config.json", "model.safetensors", "a.gguf"]

    assert chosen("hf:org/x", both) == ["config.json", "model.safetensors"]
    assert chosen("hf:org/x:a.gguf", both) == ["a.gguf"]


@pytest.mark.parametrize(
    ("source", "names", "told"),
    [
        ("hf:org/x", QUANTS, r"several GGUF files: .*tiny-Q4_0\.gguf.*Name one: hf:org/x:tiny-Q4_0\.gguf"),
        ("hf:org/x:Q5_K_M", QUANTS, r"no GGUF file 'Q5_K_M': found \['tiny-Q4_0"),
        ("hf:org/x:4_0", QUANTS, r"no GGUF file '4_0'"),
        ("hf:org/x:Q8_0", ["a-Q8_0.gguf", "b-Q8_0.gguf"], r"several GGUF files are Q8_0.*a-Q8_0\.gguf"),
        ("hf:org/x", ["config.json", "pytorch_model.bin"], r"a pickle.*pytorch_model\.bin.*safetensors or GGUF"),
        ("hf:org/x:pytorch_model.bin", ["pytorch_model.bin"], r"a pickle"),
        ("hf:org/x", ["adapter_config.json", "adapter_model.safetensors"], r"a LoRA adapter, no model"),
        ("hf:org/x", ["m-00001-of-00002.gguf"], r"a GGUF file in several parts.*llama-gguf-split"),
        ("hf:org/x", ["model.safetensors"], r"config\.json is missing"),
        ("hf:org/x", ["README.md"], r"no model in it: found \['README\.md'\]"),
        ("hf:org/x", ["../evil.gguf", "/evil.gguf"], r"no model in it: found \[\]"),
    ],
)
def test_what_is_no_single_model_is_refused_with_what_there_is(source: str, names: list[str], told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        chosen(source, names)
