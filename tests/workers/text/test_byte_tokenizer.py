import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.text.byte_tokenizer import SPECIALS, ByteTokenizer


@given(text=st.text())
def test_text_goes_through_unchanged(text: str) -> None:
    tokenizer = ByteTokenizer()

    ids = tokenizer.encode(text, add_special_tokens=True)

    assert b"".join(tokenizer.token_bytes(token_id, skip_special=False) for token_id in ids).decode() == text


def test_special_tokens_in_a_text_are_one_id_each() -> None:
    tokenizer = ByteTokenizer()

    ids = tokenizer.encode("a<|im_start|>b", add_special_tokens=False)

    assert ids == [97, 257, 98]
    assert 257 in tokenizer.special_ids


@pytest.mark.parametrize(
    ("token_id", "shown", "skipped"),
    [(65, b"A", b"A"), (256, SPECIALS[0].encode(), b""), (300, b"", b""), ((1 << 31) + 66, b"B", b"B")],
)
def test_every_id_has_its_bytes(token_id: int, shown: bytes, skipped: bytes) -> None:
    tokenizer = ByteTokenizer()

    assert tokenizer.token_bytes(token_id, skip_special=False) == shown
    assert tokenizer.token_bytes(token_id, skip_special=True) == skipped


def test_a_lone_surrogate_is_replaced() -> None:
    assert ByteTokenizer().encode("\ud800", add_special_tokens=False) == [ord("?")]
