"""Words that must not come, in the tokens in which a model could write them."""

from collections.abc import Iterable, Iterator

from shardline_workers.text.tokenizer import Tokenizer

# Stands before a word so that the word does not begin its text. Vocabularies hold no piece of a line's end and letters.
_BEFORE = "\n"


def spellings(tokenizer: Tokenizer, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token ids of each word as it is, and without and with one space before it; each spelling once.

    Tokenizers write a word at the beginning of a text otherwise than behind another one, and some put a space before
    each text: both places count. Splits that a tokenizer would not choose by itself are not among them: a model that
    insists can still write the word in another cut.
    """
    forms = (form for word in words for form in _forms(word))
    return tuple(dict.fromkeys(ids for form in forms for ids in _encoded(tokenizer, form) if ids))


def _forms(word: str) -> tuple[str, ...]:
    bare = word.lstrip()
    return (word, bare, f" {bare}") if bare else (word,)


def _encoded(tokenizer: Tokenizer, form: str) -> Iterator[tuple[int, ...]]:
    """At the beginning of a text, and behind other text where that is a cut of its own."""
    before, at_begin, behind = (
        tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (_BEFORE, form, _BEFORE + form)
    )
    yield at_begin
    if behind[: len(before)] == before:
        yield behind[len(before) :]
