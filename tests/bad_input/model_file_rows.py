"""Wrong model files, one a row: what is wrong, the files, and what the refusal names."""

# A row a line reads as a table, however long it is.
# ruff: noqa: E501
# fmt: off

import json
import struct
from dataclasses import replace

from tests.bad_input.model_file_row import (
    EMBEDDING,
    Row,
    config,
    cut,
    folder_with,
    gguf,
    gguf_of,
    lying_pair,
    quantised,
    safetensors,
    sparse_safetensors,
    tensor,
)
from tests.workers.files.gguf_bytes import TensorInfo, pair
from tests.workers.text.tiny_vocabulary import ENTRIES, byte_level_json

_AGAIN = "fetch it again"
_HUGE = 2**60
_INDEX = "model.safetensors.index.json"
_TWICE = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'

GGUF = [
    Row("an empty file", gguf_of(b""), "cannot be read", "empty", "not empty", "fetch the file again"),
    Row("no GGUF at all", gguf_of(b"PK\3\4" + bytes(100)), "not a GGUF file", "b'PK", "b'GGUF'", "Give a .gguf file"),
    Row("a version of long ago", gguf(version=1), "GGUF version", "found 1,", "(2, 3)", "Convert the file anew"),
    Row("a version of another byte order", gguf(version=3 << 24), "GGUF version", "50331648", "little-endian", "Convert the file anew"),
    Row("nothing but a magic", gguf_of(b"GGUF"), "version reaches beyond", "found 4", "at most 0 bytes", _AGAIN),
    Row("more tensors than fit", gguf(num_tensors=_HUGE), "number of tensors", str(_HUGE), "at most", _AGAIN),
    Row("more pairs than fit", gguf(num_pairs=_HUGE), "number of metadata pairs", str(_HUGE), "at most", _AGAIN),
    Row("a key of exabytes", gguf(pairs=[struct.pack("<Q", 2**63)]), "length of a metadata key", str(2**63), "at most 65535 bytes", _AGAIN),
    Row("a key that is no text", gguf(pairs=[struct.pack("<Q", 2) + b"\xff\xfe" + bytes(20)]), "a metadata key", "xff", "UTF-8", _AGAIN),
    Row("a string of exabytes", gguf(more_pairs=[lying_pair("x", 8, struct.pack("<Q", 2**62))]), "x reaches beyond", str(2**62), "at most", _AGAIN),
    Row("an array of exabytes", gguf(more_pairs=[lying_pair("x", 9, struct.pack("<IQ", 4, 2**62))]), "length of array x", str(2**62), "at most", _AGAIN),
    Row("an array of arrays", gguf(more_pairs=[lying_pair("x", 9, struct.pack("<IQ", 9, 1) + bytes(8))]), "x is an array of arrays", "found 9", "numbers or strings", _AGAIN),
    Row("a value of no type", gguf(more_pairs=[lying_pair("x", 99, bytes(8))]), "type of x", "found 99", "one of [0, 1", _AGAIN),
    Row("a key twice", gguf(more_pairs=[pair("general.architecture", "llama")]), "key stands twice", "'general.architecture'", "each key once", _AGAIN),
    Row("a cut header", cut(gguf(), 0.01), "beyond the header", "found", "at most", _AGAIN),
    Row("cut data", cut(gguf(), 0.9), "end of tensor token_embd.weight", "found", "the file's size", _AGAIN),
    Row("a tensor of no dimension", gguf(tensors=[replace(EMBEDDING, dims=())]), "number of dimensions of token_embd.weight", "found 0", "1 to 4", _AGAIN),
    Row("a tensor of nine dimensions", gguf(tensors=[replace(EMBEDDING, dims=(1,) * 9)]), "number of dimensions", "found 9", "1 to 4", _AGAIN),
    Row("dimensions that overflow", gguf(tensors=[replace(EMBEDDING, dims=(2**40, 2**40))]), "shape of token_embd.weight", str(2**40), "at most 281474976710656 weights", _AGAIN),
    Row("dimensions whose product is 0 modulo 2^64", gguf(tensors=[replace(EMBEDDING, dims=(2**32, 2**32))]), "shape of token_embd.weight", str(2**32), "weights", _AGAIN),
    Row("a tensor of no type", gguf(tensors=[replace(EMBEDDING, ggml_type=99)]), "type of token_embd.weight", "found 99", "one of F32", "quantised to one of these"),
    Row("a row that is no whole block", gguf(tensors=[replace(EMBEDDING, dims=(33, 2), ggml_type=2)]), "row of token_embd.weight", "found 33", "a multiple of Q4_0's block of 32", _AGAIN),
    Row("an offset between two places", gguf(tensors=[replace(EMBEDDING, offset=7)]), "offset of token_embd.weight", "found 7", "a multiple of 32", _AGAIN),
    Row("an offset past the end", gguf(tensors=[replace(EMBEDDING, offset=2**40)]), "end of tensor token_embd.weight", str(2**40)[:6], "the file's size", _AGAIN),
    Row("tensors that overlap", gguf(tensors=[EMBEDDING, TensorInfo("b", (8,))]), "overlap", "found", "an offset of at least", _AGAIN),
    Row("a tensor twice", gguf(tensors=[EMBEDDING, EMBEDDING]), "a tensor stands twice", "'token_embd.weight'", "each name once", _AGAIN),
    Row("an alignment of three", gguf({"general.alignment": 3}), "general.alignment", "found 3", "a power of two", _AGAIN),
    Row("an alignment of nothing", gguf({"general.alignment": 0}), "general.alignment", "found 0", "a power of two", _AGAIN),
    Row("no architecture", gguf({"general.architecture": None}), "general.architecture", "None", "the name of the model's architecture", "another copy"),
    Row("another architecture", gguf({"general.architecture": "mamba", "mamba.context_length": 64}), "general.architecture", "'mamba'", "one of llama", "supported family"),
    Row("an adapter", gguf({"general.type": "adapter"}), "general.type", "'adapter'", "model: LoRA adapters", "into which it was merged"),
    Row("no context", gguf({"llama.context_length": None}), "llama.context_length", "None", "number of tokens", "another copy"),
    Row("heads that do not divide", gguf({"llama.attention.head_count_kv": 3}), "heads", "4", "3", "supported family"),
    Row("no heads", gguf({"llama.attention.head_count": 0}), "head", "0", "1", "supported family"),
    Row("no vocabulary", gguf({"tokenizer.ggml.tokens": None}), "tokenizer.ggml.tokens", "None", "an array of strings", "another copy"),
    Row("types of other tokens", gguf({"tokenizer.ggml.token_type": [1, 1]}), "tokenizer.ggml.token_type", "(1, 1)", f"{len(ENTRIES)} numbers", "another copy"),
    Row("a BOS of no vocabulary", gguf({"tokenizer.ggml.bos_token_id": 10**6}), "tokenizer.ggml.bos_token_id", "1000000", f"0 to {len(ENTRIES) - 1}", "another copy"),
    Row("a merge of one", gguf({"tokenizer.ggml.merges": ["ab"]}), "a merge", "'ab'", "two entries with a space between", "another copy"),
    Row("a tokenizer of no kind", gguf({"tokenizer.ggml.model": "magic"}), "tokenizer.ggml.model", "'magic'", "gpt2 (byte-level BPE) or llama", "another copy"),
    Row("texts cut in no known way", gguf({"tokenizer.ggml.pre": "magic"}), "tokenizer.ggml.pre", "'magic'", "one of gpt-2", "another copy"),
    Row("a default out of bounds", gguf({"general.sampling.temp": -1.0}), "general.sampling.temp", "-1.0", "at least 0", "another copy"),
]

SAFETENSORS = [
    Row("an empty file of weights", folder_with({"model.safetensors": b""}), "cannot be read", "empty", "not empty", "fetch the file again"),
    Row("a header past the end", safetensors({}, length=10**6), "length of the header", "1000000", "at most 2 bytes", _AGAIN),
    Row("a header of exabytes", safetensors({}, length=2**63), "length of the header", str(2**63), "at most 2 bytes", _AGAIN),
    Row("a header above 100 MB", sparse_safetensors(100_000_001, file_bytes=100_000_100), "length of the header", "100000001", "at most 100000000 bytes", _AGAIN),
    Row("a header that is no JSON", safetensors(b"{"), "the header is no JSON", "Expecting", "a JSON object", _AGAIN),
    Row("a header that is a list", safetensors([]), "the header is no JSON object", "[]", "a JSON object", _AGAIN),
    Row("a header without a floor", safetensors(b"[" * 100_000), "the header is no JSON", "recursion", "a JSON object", _AGAIN),
    Row("a header with an endless number", safetensors(b'{"a": ' + b"1" * 5_000 + b"}"), "the header is no JSON", "digits", "a JSON object", _AGAIN),
    Row("a name twice", safetensors(_TWICE, data=bytes(8)), "stands twice", "'a'", "each name once", _AGAIN),
    Row("a type that is none", safetensors({"a": tensor(0, 8, dtype="F7")}, data=bytes(8)), "dtype of a", "'F7'", "one of BOOL", _AGAIN),
    Row("a negative dimension", safetensors({"a": tensor(0, 8, shape=[-2])}, data=bytes(8)), "shape of a", "[-2]", "at least 0", _AGAIN),
    Row("a dimension of half", safetensors({"a": tensor(0, 8, shape=[2.5])}, data=bytes(8)), "shape of a", "[2.5]", "at least 0", _AGAIN),
    Row("an entry that says little", safetensors({"a": {"dtype": "F32"}}, data=bytes(8)), "entry of a", "'F32'", "shape and two data_offsets", _AGAIN),
    Row("more bytes than its shape", safetensors({"a": tensor(0, 12)}, data=bytes(12)), "data of a", "12 bytes", "shape (2,) takes", _AGAIN),
    Row("an end past the file", safetensors({"a": tensor(0, 8)}, data=bytes(4)), "data_offsets of a", "[0, 8]", "within 4", _AGAIN),
    Row("an end before its begin", safetensors({"a": tensor(8, 0)}, data=bytes(8)), "data_offsets of a", "[8, 0]", "rising", _AGAIN),
    Row("weights on weights", safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, data=bytes(12)), "overlap", "'a' and 'b'", "an offset of at least", _AGAIN),
]

FOLDERS = [
    Row("a configuration that is no JSON", folder_with({"config.json": "{"}), "not a configuration", "Expecting", "a JSON object", "Fetch the file again"),
    Row("a configuration that is a list", folder_with({"config.json": "[1]"}), "not a configuration", "[1]", "a JSON object", "Fetch the file again"),
    Row("a context that is no number", config(max_position_embeddings="long"), "max_position_embeddings", "'long'", "a whole number", "another copy"),
    Row("a context of nothing", config(max_position_embeddings=0), "max_position_embeddings", "0", "at least 1", "another copy"),
    Row("no length", config(max_position_embeddings=None), "max_position_embeddings", "None", "number of tokens", "another copy"),
    Row("an unknown family", config(architectures=["MambaForCausalLM"]), "architectures", "MambaForCausalLM", "one of LlamaForCausalLM", "supported family"),
    Row("a model that sees", config(architectures=["LlavaForConditionalGeneration"]), "architectures", "Llava", "one of LlamaForCausalLM", "see or hear"),
    Row("an unknown activation", config(hidden_act="mish"), "hidden_act", "'mish'", "silu", "supported family"),
    Row("a size that is not a number", config(rms_norm_eps=float("nan")), "rms_norm_eps", "nan", "finite", "another copy"),
    Row("layers without end", config(num_hidden_layers=10**9), "layers", "1000000000", "at most", "supported family"),
    Row("AWQ", quantised("awq", bits=4), "quantization_config (AWQ)", "'awq'", "not quantised", "a GGUF file"),
    Row("GPTQ", quantised("gptq", bits=4), "quantization_config (GPTQ)", "'gptq'", "not quantised", "a GGUF file"),
    Row("FP8", quantised("fp8"), "quantization_config (FP8)", "'fp8'", "not quantised", "a GGUF file"),
    Row("bitsandbytes", quantised("bitsandbytes", load_in_4bit=True), "quantization_config (bitsandbytes)", "load_in_4bit", "not quantised", "a GGUF file"),
    Row("compressed tensors", quantised("compressed-tensors"), "quantization_config (compressed-tensors)", "compressed-tensors", "not quantised", "a GGUF file"),
    Row("an adapter without its model", folder_with({"adapter_config.json": "{}", "model.safetensors": None}), "a LoRA adapter", "adapter_config.json", "a whole model", "Merge the adapter"),
    Row("no weights", folder_with({"model.safetensors": None}), "no such model", "config.json", "model.safetensors", "Check the spelling"),
    Row("an index that is no mapping", folder_with({_INDEX: "{}"}), "weight_map", "None", "{tensor: file}", "another copy"),
    Row("an index that leads elsewhere", folder_with({_INDEX: json.dumps({"weight_map": {"a": "../other.safetensors"}})}), "weight_map", "../other.safetensors", "in this folder", "another copy"),
    Row("a shard that is not there", folder_with({_INDEX: json.dumps({"weight_map": {"a": "b.safetensors"}})}), "b.safetensors", "No such file", "a readable regular file", "fetch the file again"),
    Row("a tensor that is in no shard", folder_with({_INDEX: json.dumps({"weight_map": {"ghost": "model.safetensors"}})}), "tensor 'ghost' is missing", "other tensors", _INDEX, "fetch them together"),
    Row("no tokenizer", folder_with({"tokenizer.json": None}), "not a tokenizer", "No such file", "a tokenizer.json", "Fetch the file again"),
    Row("a tokenizer that is no JSON", folder_with({"tokenizer.json": "{"}), "not a tokenizer", "EOF", "a tokenizer.json", "Fetch the file again"),
    Row("a tokenizer of words", folder_with({"tokenizer.json": json.dumps(byte_level_json() | {"decoder": {"type": "WordPiece", "prefix": "#", "cleanup": True}})}), "decoder is not supported", "WordPiece", "ByteLevel", "Take a model"),
    Row("a SentencePiece file that is none", folder_with({"tokenizer.json": None, "tokenizer.model": b"\xff" * 20}), "not a SentencePiece model", "more than ten bytes", "a tokenizer.model", "with a tokenizer.json"),
    Row("a temperature below 0", folder_with({"generation_config.json": '{"temperature": -1}'}), "temperature", "-1", "at least 0", "another copy"),
    Row("a top_p above 1", folder_with({"generation_config.json": '{"top_p": 2}'}), "top_p", "2", "at most 1", "--generation-config none"),
    Row("an end that is no number", folder_with({"generation_config.json": '{"eos_token_id": "end"}'}), "eos_token_id", "'end'", "a whole number", "another copy"),
    Row("a chat template that is no text", folder_with({"tokenizer_config.json": '{"chat_template": 7}'}), "chat_template", "7", "a string", "another copy"),
    Row("a chat template that is no Jinja", folder_with({"chat_template.jinja": "{% for %}"}), "chat template", "line 1", "Jinja", "--chat-template"),
]

ROWS = [*GGUF, *SAFETENSORS, *FOLDERS]
