"""Against SentencePiece's rule written down: join, again and again, the neighbours of the best joined piece."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.text.sentencepiece_vocabulary import PieceType, SentencePieceVocabulary

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = ["▁", "a", "b", "c"]


def by_rule(vocabulary: SentencePieceVocabulary, text: str) -> list[str]:
    """Quadratic, and right: of equal scores the leftmost is joined."""
    scores = {
        piece: score
        for piece, score, kind in zip(vocabulary.pieces, vocabulary.scores, vocabulary.types, strict=True)
        if kind == PieceType.NORMAL
    }
    symbols = list(text.replace(" ", "▁"))
    while True:
        joined = [
            (-scores[left + right], index)
            for index, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in scores
        ]
        if not joined:
            break
        _, index = min(joined)
        symbols[index : index + 2] = ["".join(symbols[index : index + 2])]
    return [
        entry
        for symbol in symbols
        for entry in ([symbol] if symbol in scores else [f"<0x{byte:02X}>" for byte in symbol.encode()])
    ]


pieces = st.lists(st.text("▁abc", min_size=2, max_size=4), unique=True, max_size=25)


@given(longer=pieces, shuffled=st.randoms(use_true_random=False), text=st.text(" abcé", max_size=30))
def test_pieces_are_joined_by_their_scores(longer: list[str], shuffled: object, text: str) -> None:
    scores = [-float(number) for number in range(len(longer) + len(LETTERS))]
    shuffled.shuffle(scores)  # type: ignore[attr-defined]
    vocabulary = SentencePieceVocabulary(
        pieces=("<unk>", *BYTES, *LETTERS, *longer),
        scores=(0.0, *[0.0] * 256, *scores),
        types=(PieceType.UNKNOWN, *[PieceType.BYTE] * 256, *[PieceType.NORMAL] * len(scores)),
        adds_space_prefix=False,
    )

    ids = vocabulary.tokenizer().encode(text, add_special_tokens=False).ids

    assert [vocabulary.pieces[token_id] for token_id in ids] == by_rule(vocabulary, text)


def test_a_byte_that_is_written_out_is_text() -> None:
    vocabulary = SentencePieceVocabulary(
        pieces=("<unk>", *BYTES, *"<0x41>"[:1], *"0x41>"),
        scores=(0.0,) * 263,
        types=(PieceType.UNKNOWN, *[PieceType.BYTE] * 256, *[PieceType.NORMAL] * 6),
        adds_space_prefix=False,
    )

    assert vocabulary.tokenizer().encode("<0x41>", add_special_tokens=False).tokens == list("<0x41>")


def test_without_bytes_what_is_unknown_is_one_unknown_token() -> None:
    vocabulary = SentencePieceVocabulary(
        pieces=("<unk>", "▁", "a"),
        scores=(0.0, -1.0, -2.0),
        types=(PieceType.UNKNOWN, PieceType.NORMAL, PieceType.NORMAL),
        adds_space_prefix=True,
    )

    assert vocabulary.tokenizer().encode("aéüa", add_special_tokens=False).ids == [1, 2, 0, 2]
