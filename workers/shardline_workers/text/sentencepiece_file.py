"""Reads a tokenizer.model: SentencePiece's own file, a protobuf message.

Only what a tokenizer of the BPE kind needs is read, straight from the wire format (source: sentencepiece_model.proto):

    ModelProto      1 pieces*   2 trainer_spec   3 normalizer_spec
    SentencePiece   1 piece     2 score          3 type
    TrainerSpec     3 model_type
    NormalizerSpec  1 name      2 precompiled_charsmap   3 add_dummy_prefix   4 remove_extra_whitespaces
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.hf_tokenizer import HfTokenizer
from shardline_workers.text.sentencepiece_vocabulary import PieceType, SentencePieceVocabulary

MAX_FILE_BYTES = 64 << 20  # the largest known one has 5 MB
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_BPE = 2

Value = int | bytes


def read_sentencepiece_file(path: Path) -> SentencePieceVocabulary:
    """The vocabulary of a tokenizer.model.

    Raises:
        ModelFileError: the file is missing, broken, or of a kind that is not supported.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
        fields = list(_fields(content))
        pieces = [_piece(value) for number, value in fields if number == 1 and isinstance(value, bytes)]
        trainer, normalizer = (_last_message(fields, number) for number in (2, 3))
    except (OSError, ValueError, struct.error) as error:
        raise _wrong(path, "not a SentencePiece model", value=str(error), bound="a tokenizer.model") from error
    _refuse_unsupported(path, trainer, normalizer)
    if not pieces:
        raise _wrong(path, "pieces", value=0, bound="a vocabulary")
    texts, scores, types = zip(*pieces, strict=True)
    return SentencePieceVocabulary(
        pieces=texts, scores=scores, types=types, adds_space_prefix=bool(normalizer.get(3, 1))
    )


def load_sentencepiece_tokenizer(
    path: Path, *, bos_token: str | None, adds_bos: bool, special_tokens: frozenset[str]
) -> HfTokenizer:
    """The tokenizer of a tokenizer.model.

    Args:
        path: the file.
        bos_token: BOS, by its piece.
        adds_bos: whether a text begins with it.
        special_tokens: pieces that are special beside those that the file marks.

    Raises:
        ModelFileError: see `read_sentencepiece_file`.
    """
    vocabulary = read_sentencepiece_file(path)
    types = tuple(
        PieceType.CONTROL if piece in special_tokens else kind
        for piece, kind in zip(vocabulary.pieces, vocabulary.types, strict=True)
    )
    try:
        tokenizer = replace(vocabulary, types=types).tokenizer()
    except ValueError as error:
        raise _wrong(path, "not a SentencePiece model", value=str(error), bound="a tokenizer.model") from error
    return HfTokenizer(tokenizer, bos_token=bos_token, adds_bos=adds_bos, path=path)


def _refuse_unsupported(path: Path, trainer: dict[int, Value], normalizer: dict[int, Value]) -> None:
    kind = trainer.get(3, 1)
    if kind != _BPE:
        told = _MODEL_TYPES.get(kind, kind) if isinstance(kind, int) else kind
        raise _wrong(path, "SentencePiece model type", value=told, bound="BPE")
    if normalizer.get(2):
        raise _wrong(path, "normaliser", value=normalizer.get(1), bound="identity: no table of characters")
    if normalizer.get(4, 1):
        raise _wrong(path, "remove_extra_whitespaces", value=True, bound="false: spaces stay as they are")


def _piece(message: bytes) -> tuple[str, float, int]:
    values = dict(_fields(message))
    score, kind = values.get(2, 0), values.get(3, PieceType.NORMAL)
    if not isinstance(score, int) or not isinstance(kind, int):
        raise ValueError("a score or a type is no number")
    text = _text(values.get(1, b""))
    # Pieces that stay whole are looked for in the text as it is.
    text = text.replace("▁", " ") if kind == PieceType.USER_DEFINED else text
    return text, struct.unpack("<f", struct.pack("<I", score & 0xFFFFFFFF))[0], kind


def _last_message(fields: list[tuple[int, Value]], number: int) -> dict[int, Value]:
    messages = [value for found, value in fields if found == number and isinstance(value, bytes)]
    return dict(_fields(messages[-1])) if messages else {}


def _text(value: Value) -> str:
    if not isinstance(value, bytes):
        raise ValueError("a text is a number")
    return value.decode()


def _fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Numbers and values of a message's fields. A float is told by its bits."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value, position = _value(message, position, wire_type=tag & 7)
        yield tag >> 3, value


def _value(message: bytes, position: int, *, wire_type: int) -> tuple[Value, int]:
    match wire_type:
        case 0:
            return _varint(message, position)
        case 1 | 5:
            size = 8 if wire_type == 1 else 4
            return int.from_bytes(_cut(message, position, size), "little"), position + size
        case 2:
            size, position = _varint(message, position)
            return _cut(message, position, size), position + size
    raise ValueError(f"wire type {wire_type} at byte {position}")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = _cut(message, position, 1)
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError(f"a number of more than ten bytes before byte {position}")


def _cut(message: bytes, position: int, size: int) -> bytes:
    if position + size > len(message):
        raise ValueError(f"{size} bytes at byte {position} reach beyond the end, {len(message)}")
    return message[position : position + size]


def _wrong(path: Path, what: str, *, value: object, bound: str) -> ModelFileError:
    remedy = "Take a checkpoint with a tokenizer.json, or a GGUF file of the model."
    return ModelFileError.about(path, what, value=value, bound=bound, remedy=remedy)
