"""A SentencePiece vocabulary of the BPE kind (Llama 2, Gemma), wherever it was read from, as a tokenizer.

SentencePiece joins, again and again, the two neighbours whose joined piece has the highest score. The `tokenizers`
library joins by rank: so every piece becomes a merge of each two pieces that it can be made of, highest scores first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

MAX_PIECE_CHARACTERS = 256  # the ways to make a piece grow with its length; known vocabularies stay below 100
_SPACE = "▁"
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


class PieceType(IntEnum):
    """What a piece is; the numbers are those of SentencePiece's files and of GGUF."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # special, never shown
    USER_DEFINED = 4  # stays whole in a text, and is shown
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceVocabulary:
    """Pieces by id. All three tuples are as long."""

    pieces: tuple[str, ...]  # of normal ones `▁` is a space
    scores: tuple[float, ...]  # the highest is joined first
    types: tuple[int, ...]  # see PieceType
    adds_space_prefix: bool  # a text, and what follows a special token, begins as if a space stood before

    def tokenizer(self) -> Tokenizer:
        """A new tokenizer; two seconds for 260,000 pieces.

        Raises:
            ValueError: pieces or types do not fit together, or a piece is too long.
        """
        longest = max(map(len, self.pieces), default=0)
        if longest > MAX_PIECE_CHARACTERS:
            raise ValueError(f"a piece of {longest} characters; at most {MAX_PIECE_CHARACTERS}")
        tokenizer = Tokenizer(self._model())
        tokenizer.normalizer = self._normalizer()
        tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        self._add_whole_tokens(tokenizer)
        return tokenizer

    def _model(self) -> models.BPE:
        ids = {piece: number for number, piece in enumerate(self.pieces)}
        unknown = next((piece for piece, kind in self._typed() if kind == PieceType.UNKNOWN), None)
        try:
            return models.BPE(
                vocab=ids,
                merges=list(self._merges()),
                unk_token=unknown,
                fuse_unk=True,
                byte_fallback=all(byte in ids for byte in _BYTES),
            )
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(str(error)) from error

    def _merges(self) -> Iterator[tuple[str, str]]:
        """Of one piece's merges that with the longest left part comes first."""
        normal = {piece for piece, kind in self._typed() if kind == PieceType.NORMAL}
        numbers = [number for number, kind in enumerate(self.types) if kind == PieceType.NORMAL]
        for number in sorted(numbers, key=lambda number: -self.scores[number]):
            piece = self.pieces[number]
            for length in range(len(piece) - 1, 0, -1):
                left, right = piece[:length], piece[length:]
                if left in normal and right in normal:
                    yield left, right

    def _normalizer(self) -> normalizers.Normalizer:
        replace = normalizers.Replace(" ", _SPACE)
        return normalizers.Sequence([normalizers.Prepend(_SPACE), replace]) if self.adds_space_prefix else replace

    def _add_whole_tokens(self, tokenizer: Tokenizer) -> None:
        """They are found in the text as it is, so a space in them is one."""
        special, whole = [], []
        for piece, kind in self._typed():
            if kind in (PieceType.CONTROL, PieceType.UNKNOWN) and piece:
                special.append(AddedToken(piece, normalized=False, special=True))
            elif kind == PieceType.USER_DEFINED and piece:
                whole.append(AddedToken(piece, normalized=False, special=False))
        tokenizer.add_tokens(special)
        tokenizer.add_tokens(whole)

    def _typed(self) -> Iterator[tuple[str, int]]:
        return zip(self.pieces, self.types, strict=True)
