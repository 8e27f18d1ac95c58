from hypothesis import given
from hypothesis import strategies as st

from shardline_workers.text.byte_tokenizer import ByteTokenizer
from shardline_workers.text.output_text import OutputHit, OutputPiece, OutputText
from tests.workers.text.cuts import cut, edges

STOP = "ünd"


def output(*stops: str, include_stop: bool = False) -> OutputText:
    return OutputText(ByteTokenizer(), stops=stops, include_stop=include_stop)


def test_a_hit_names_the_token_that_completed_the_stop() -> None:
    text = output(STOP)

    first = text.feed(b"a" + STOP.encode()[:2])
    second = text.feed(STOP.encode()[2:] + b"rest")

    assert first == OutputPiece("a")
    assert second == OutputPiece("", OutputHit(stop=STOP, text_end=1, token_index=1))
    assert text.feed(b"more") == OutputPiece("")
    assert text.finish() == ""


def test_an_end_without_a_stop_gives_out_what_was_held_back_and_half_a_character() -> None:
    text = output(STOP)

    assert text.feed(b"x" + "ü".encode() + "🚀".encode()[:2]) == OutputPiece("x")
    assert text.finish() == "ü\ufffd"
    assert text.finish() == ""


def test_nothing_comes_behind_a_hit_even_where_its_token_began_another_character() -> None:
    text = output("b")

    assert text.feed(b"ab\xf0").text == "a"
    assert text.finish() == ""


any_bytes = st.binary(max_size=40) | st.text("aünd🚀", max_size=20).map(str.encode)


@given(content=any_bytes, at=edges, include_stop=st.booleans())
def test_text_and_hit_are_a_function_of_the_tokens_so_far(content: bytes, at: list[int], include_stop: bool) -> None:
    text = output(STOP, "dü", include_stop=include_stop)
    fed, shown, hit_at = 0, "", None

    for piece in cut(content, at):
        step = text.feed(piece)
        if step.hit is not None:
            hit_at = fed + step.hit.token_index
            assert step.hit.text_end == len(shown + step.text)
        fed, shown = fed + len(piece), shown + step.text
        replayed = output(STOP, "dü", include_stop=include_stop).feed(content[:fed])
        assert shown == replayed.text
        assert hit_at == (None if replayed.hit is None else replayed.hit.token_index)


def test_text_before_the_least_tokens_is_given_out_with_the_stop_in_it() -> None:
    text = OutputText(ByteTokenizer(), stops=("ab",), min_tokens=3)

    assert text.feed(b"ab").text == "ab"
    assert text.feed(b"ab") == OutputPiece("", OutputHit(stop="ab", text_end=2, token_index=1))
