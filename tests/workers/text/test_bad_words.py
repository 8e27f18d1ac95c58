"""Bad words in the tokens of a tokenizer that writes a word differently at the beginning and behind a space."""

from shardline_workers.text.bad_words import spellings


class _WordTokenizer:
    """A token for each word, another one for each word with its space."""

    vocab_size = 100
    special_ids = frozenset[int]()

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        known = {"cat": [1], " cat": [2], "cat sat": [1, 3], " cat sat": [2, 3], "  cat": [4, 2], "\n": [5]}
        return known.get(text, [])

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        raise NotImplementedError


def test_a_word_is_forbidden_with_and_without_a_space_before_it() -> None:
    assert spellings(_WordTokenizer(), ["cat"]) == ((1,), (2,))
    assert spellings(_WordTokenizer(), ["cat sat"]) == ((1, 3), (2, 3))


def test_spaces_of_the_word_itself_are_another_spelling() -> None:
    assert spellings(_WordTokenizer(), ["  cat"]) == ((4, 2), (1,), (2,))
    assert spellings(_WordTokenizer(), ["\n"]) == ((5,),)


def test_each_spelling_is_told_once_and_what_has_no_token_not_at_all() -> None:
    assert spellings(_WordTokenizer(), ["cat", " cat", "unknown"]) == ((1,), (2,))
