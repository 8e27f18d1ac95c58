from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.text.byte_tokenizer import ByteTokenizer
from shardline_workers.text.detokenizer import Detokenizer
from tests.workers.text.cuts import cut, edges


def detokenizer(*, skip_special: bool = True) -> Detokenizer:
    return Detokenizer(ByteTokenizer(), skip_special=skip_special)


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    emoji = "🚀".encode()
    text = detokenizer()

    pieces = [text.feed([byte]) for byte in b"a" + emoji]

    assert pieces == ["a", "", "", "", "🚀"]
    assert text.flush() == ""


def test_a_tail_that_never_became_a_character_is_replaced_at_the_end() -> None:
    text = detokenizer()

    assert text.feed(b"ok" + "🚀".encode()[:3]) == "ok"
    assert text.flush() == "\ufffd"


def test_bytes_that_can_never_become_a_character_are_replaced_at_once() -> None:
    assert detokenizer().feed(b"\xe2\x82a") == "\ufffda"


def test_special_tokens_are_text_only_where_they_are_not_skipped() -> None:
    assert detokenizer(skip_special=True).feed([97, 256]) == "a"
    assert detokenizer(skip_special=False).feed([97, 256]) == "a<|endoftext|>"


any_bytes = st.binary(max_size=60) | st.text(max_size=15).map(str.encode)


@given(content=any_bytes, at=edges)
def test_the_text_does_not_depend_on_how_the_ids_were_cut(content: bytes, at: list[int]) -> None:
    one_by_one, in_pieces = detokenizer(), detokenizer()
    pieces = cut(content, at)

    texts = ["".join(one_by_one.feed([byte]) for byte in piece) for piece in pieces]

    assert texts == [in_pieces.feed(piece) for piece in pieces]
    assert one_by_one.flush() == in_pieces.flush()


@given(content=any_bytes)
def test_the_whole_text_is_that_of_the_whole_bytes(content: bytes) -> None:
    text = detokenizer()

    assert text.feed(content) + text.flush() == content.decode(errors="replace")
