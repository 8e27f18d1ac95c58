"""Uses a tokenizer that was read from bytes of nobody knows whom, as a router and a leader would."""

from shardline_workers.text.tokenizer import Tokenizer

_TEXTS = ("", "hello 12 ab", "é 🪨\n\t<s>", "\ud800 a")


def try_tokenizer(tokenizer: Tokenizer) -> None:
    """Encodes some texts and spells their tokens, and those at the vocabulary's ends."""
    size = tokenizer.vocab_size
    ids = {0, size - 1, size, 2**32 - 1}
    for text in _TEXTS:
        encoded = tokenizer.encode(text, add_special_tokens=True)
        assert all(0 <= token_id < size for token_id in encoded), "an id outside the vocabulary"
        ids.update(encoded)
    for token_id in ids:
        tokenizer.token_bytes(token_id, skip_special=False)
        tokenizer.token_bytes(token_id, skip_special=True)
