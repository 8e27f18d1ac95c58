"""Bad words in the tokens of a tokenizer that writes a word differently at the beginning and behind a space."""

from pathlib import Path

from shardline_workers.text.bad_words import spellings
from shardline_workers.text.hf_tokenizer import HfTokenizer
from shardline_workers.text.sentencepiece_vocabulary import PieceType, SentencePieceVocabulary

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


class _WordTokenizer:
    """A token for each word, another one for each word with its space."""

    vocab_size = 100
    special_ids = frozenset[int]()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        known = {"cat": [1], " cat": [2], "cat sat": [1, 3], " cat sat": [2, 3], "  cat": [4, 2], "\n": [5]}
        return known.get(text, [])

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        raise AssertionError(f"spellings are encoded only, but token {token_id} was decoded")


def test_a_word_is_forbidden_with_and_without_a_space_before_it() -> None:
    assert spellings(_WordTokenizer(), ["cat"]) == ((1,), (2,))
    assert spellings(_WordTokenizer(), ["cat sat"]) == ((1, 3), (2, 3))


def test_spaces_of_the_word_itself_are_another_spelling() -> None:
    assert spellings(_WordTokenizer(), ["  cat"]) == ((4, 2), (1,), (2,))
    assert spellings(_WordTokenizer(), ["\n"]) == ((5,),)


def test_each_spelling_is_told_once_and_what_has_no_token_not_at_all() -> None:
    assert spellings(_WordTokenizer(), ["cat", " cat", "unknown"]) == ((1,), (2,))


def test_a_word_without_a_space_is_covered_where_each_text_begins_as_if_behind_one() -> None:
    pieces = ("<unk>", *BYTES, "▁", "c", "a", "t", "(", "at", "cat", "▁cat")
    vocabulary = SentencePieceVocabulary(
        pieces=pieces,
        scores=tuple(float(number) for number in range(len(pieces))),
        types=(PieceType.UNKNOWN, *[PieceType.BYTE] * 256, *[PieceType.NORMAL] * (len(pieces) - 257)),
        adds_space_prefix=True,
    )
    tokenizer = HfTokenizer(vocabulary.tokenizer(), bos_token=None, path=Path("tokenizer.model"))

    forbidden = spellings(tokenizer, ["cat"])

    in_brackets = [pieces[token_id] for token_id in tokenizer.encode("(cat", add_special_tokens=False)]
    assert in_brackets == ["▁", "(", "cat"]
    assert {tuple(pieces[token_id] for token_id in ids) for ids in forbidden} == {
        ("cat",),
        ("▁cat",),
        ("▁", "▁cat"),
    }


def test_a_word_that_melts_into_the_end_of_a_line_keeps_its_spelling_alone() -> None:
    class _LineTokenizer(_WordTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return {"\n": [5], "\n\n": [6]}.get(text, [])

    assert spellings(_LineTokenizer(), ["\n"]) == ((5,),)
