"""Words that must not come, in the tokens in which a model could write them."""

from collections.abc import Iterable

from shardline_workers.text.tokenizer import Tokenizer


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token ids of each word as it is, and without and with one space before it; each spelling once.

    Tokenizers write a word at the beginning of a text otherwise than behind another one. Splits that a tokenizer would
    not choose by itself are not among them: a model that insists can still write the word in another cut.
    """
    forms = (form for word in words for form in _forms(word))
    encoded = (tuple(tokenizer.encode(form, add_special_tokens=False)) for form in forms)
    return tuple(dict.fromkeys(ids for ids in encoded if ids))


def _forms(word: str) -> tuple[str, ...]:
    bare = word.lstrip()
    return (word, bare, f" {bare}") if bare else (word,)
