import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.files.ggml_types import GGML_TYPES
from shardline_workers.files.gguf_file import GgufFile, GgufTensor
from shardline_workers.files.model_file_error import ModelFileError
from tests.workers.files.gguf_bytes import TensorInfo, gguf_bytes, pair, text


def opened(tmp_path: Path, content: bytes) -> GgufFile:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return GgufFile.open(path)


@pytest.mark.parametrize(
    ("kind", "code", "value"),
    [
        (0, "B", 200),
        (1, "b", -100),
        (2, "H", 60_000),
        (3, "h", -30_000),
        (4, "I", 4_000_000_000),
        (5, "i", -2_000_000_000),
        (6, "f", 0.5),
        (7, "?", True),
        (10, "Q", 1 << 63),
        (11, "q", -(1 << 62)),
        (12, "d", 0.1),
    ],
)
def test_a_number_of_every_width_is_read_alone_and_in_arrays(
    kind: int, code: str, value: float, tmp_path: Path
) -> None:
    alone = text("alone") + struct.pack(f"<I{code}", kind, value)
    three = text("three") + struct.pack(f"<IIQ3{code}", 9, kind, 3, value, value, value)

    with opened(tmp_path, gguf_bytes(pairs=[alone, three])) as file:
        assert dict(file.metadata) == {"alone": value, "three": (value,) * 3}


def test_metadata_of_every_sort_is_read(tmp_path: Path) -> None:
    pairs = {"a.flag": True, "a.count": -3, "a.eps": 0.5, "a.name": "größe", "a.words": ["x", "", "ü"], "a.ids": [1, 2]}

    with opened(tmp_path, gguf_bytes(pairs=[pair(key, value) for key, value in pairs.items()])) as file:
        read = dict(file.metadata)

    assert read == {key: tuple(value) if isinstance(value, list) else value for key, value in pairs.items()}


def test_a_tensor_is_row_major_and_its_bytes_are_the_files(tmp_path: Path) -> None:
    infos = [TensorInfo("norm", [4]), TensorInfo("weight", [32, 2], ggml_type=8, offset=32)]
    data = bytes(range(16)) + b"\0" * 16 + bytes(range(68))

    with opened(tmp_path, gguf_bytes(tensors=infos, data=data)) as file:
        weight = file.tensors["weight"]

        assert (weight.shape, weight.num_bytes) == ((2, 32), 68)
        assert file.tensor_bytes("norm") == bytes(range(16))
        assert file.tensor_bytes("weight") == bytes(range(68))


def test_views_outlive_the_file(tmp_path: Path) -> None:
    file = opened(tmp_path, gguf_bytes(tensors=[TensorInfo("norm", [4])], data=bytes(range(16))))
    view = file.tensor_bytes("norm")

    file.close()

    assert view == bytes(range(16))
    with pytest.raises(ValueError, match="released"):
        file.tensor_bytes("norm")


def test_files_of_the_gguf_package_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    weight = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list(["a", "Ġb"])
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_tensor("weight", weight)
    writer.add_tensor("packed", gguf.quantize(weight, gguf.GGMLQuantizationType.Q8_0), raw_dtype=8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with GgufFile.open(path) as file:
        assert file.metadata["general.architecture"] == "llama"
        assert file.metadata["tokenizer.ggml.tokens"] == ("a", "Ġb")
        assert file.metadata["llama.rope.freq_base"] == 10000.0
        assert file.tensor_bytes("weight") == weight.tobytes()
        assert file.tensors["packed"] == GgufTensor("packed", 8, (2, 32), file.tensors["packed"].offset, 68)


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): sizes for kind, sizes in gguf.GGML_QUANT_SIZES.items() if int(kind) in GGML_TYPES}

    assert theirs == {type_id: (kind.block_weights, kind.block_bytes) for type_id, kind in GGML_TYPES.items()}
    assert all(gguf.GGMLQuantizationType(type_id).name == kind.name for type_id, kind in GGML_TYPES.items())


HUGE = 1 << 62
NESTED = text("a.nested") + struct.pack("<IIQ", 9, 9, 1)
LYING = {
    "not a GGUF file": gguf_bytes(magic=b"GGML"),
    "GGUF version": gguf_bytes(version=1),
    "number of metadata pairs": gguf_bytes(num_pairs=HUGE),
    "number of tensors": gguf_bytes(num_tensors=HUGE),
    "length of a metadata key": gguf_bytes(pairs=[struct.pack("<Q", HUGE) + b"key"], data=b"\0" * 64),
    "expected UTF-8": gguf_bytes(pairs=[struct.pack("<Q", 2) + b"\xff\xff" + struct.pack("<Iq", 11, 0)]),
    "stands twice": gguf_bytes(pairs=[pair("a.b", 1), pair("a.b", 2)]),
    "array of arrays": gguf_bytes(pairs=[NESTED], data=b"\0" * 64),
    "length of array a.b": gguf_bytes(pairs=[text("a.b") + struct.pack("<IIQ", 9, 4, HUGE)]),
    "string 1 of a.b": gguf_bytes(
        pairs=[text("a.b") + struct.pack("<IIQ", 9, 8, 2) + text("x") + struct.pack("<Q", 99)]
    ),
    "type of a.b": gguf_bytes(pairs=[text("a.b") + struct.pack("<IQ", 77, 0)]),
    "a.b reaches beyond": gguf_bytes(pairs=[text("a.b") + struct.pack("<IQ", 8, HUGE)]),
    "general.alignment": gguf_bytes(pairs=[pair("general.alignment", 3)]),
    "number of dimensions of w: found 5": gguf_bytes(tensors=[TensorInfo("w", [1] * 5)]),
    "number of dimensions of w: found 0": gguf_bytes(tensors=[TensorInfo("w", [])], data=b"\0" * 8),
    "type of w": gguf_bytes(tensors=[TensorInfo("w", [32], ggml_type=4)]),
    "row of w": gguf_bytes(tensors=[TensorInfo("w", [33], ggml_type=8)]),
    "shape of w": gguf_bytes(tensors=[TensorInfo("w", [HUGE, HUGE])]),
    "offset of w": gguf_bytes(tensors=[TensorInfo("w", [1], offset=8)]),
    "end of tensor w": gguf_bytes(tensors=[TensorInfo("w", [8], offset=1 << 40)]),
    "a tensor stands twice": gguf_bytes(tensors=[TensorInfo("w", [1]), TensorInfo("w", [1])], data=b"\0" * 4),
    "overlap": gguf_bytes(tensors=[TensorInfo("v", [9]), TensorInfo("w", [1], offset=32)], data=b"\0" * 64),
}


@pytest.mark.parametrize("what", LYING)
def test_a_lying_file_is_refused_by_what_is_wrong(what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=what):
        opened(tmp_path, LYING[what])


def test_a_missing_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        GgufFile.open(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="cannot be read"):
        GgufFile.open(tmp_path)
    with pytest.raises(ModelFileError, match="empty"):
        opened(tmp_path, b"")


WHOLE = gguf_bytes(
    pairs=[pair("a.words", ["x", "yy"]), pair("a.count", 3), pair("a.name", "n")],
    tensors=[TensorInfo("norm", [4]), TensorInfo("weight", [32, 2], ggml_type=8, offset=32)],
    data=bytes(100),
)


@pytest.mark.parametrize("num_bytes", range(1, len(WHOLE), 7))
def test_a_file_cut_anywhere_is_refused(num_bytes: int, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        opened(tmp_path, WHOLE[:num_bytes])


@given(position=st.integers(0, len(WHOLE) - 101), garbage=st.binary(min_size=1, max_size=8))
def test_garbage_is_read_or_refused_and_never_crashes(
    position: int, garbage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = WHOLE[:position] + garbage + WHOLE[position + len(garbage) :]
    folder = tmp_path_factory.getbasetemp()

    try:
        with opened(folder, content) as file:
            within = all(tensor.offset + tensor.num_bytes <= len(content) for tensor in file.tensors.values())
    except ModelFileError:
        return

    assert within
