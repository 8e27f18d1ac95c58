"""The text at a cursor is a pure function of the tokens before it, whoever assembles it and however it was cut."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shardline_cluster.queue.cursor import decode_cursor
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import RequestEnd, RequestState, SequenceFinish, SequenceLog
from shardline_cluster.router.streams.stream_reader import SequenceUpdate
from shardline_cluster.router.text_assembly import TextAssembly, finished
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.text.byte_tokenizer import END_OF_TEXT, ByteTokenizer
from shardline_workers.text.simulated_text import simulated_text_model

MODEL = simulated_text_model(4096)
EOS = ByteTokenizer().encode(END_OF_TEXT, add_special_tokens=False)[0]
PIECES = st.sampled_from(["a", "é", "😀", "STOP", "STO", "ST", "\n"])
STOP = SequenceFinish("stop")


def _assembly(*, echoed: str = "", **sampling: object) -> TextAssembly:
    fields = {"n": 1, "skip_special_tokens": True} | sampling
    payload = RequestPayload(sampling=pb.SamplingParams(**fields), prompt_text=echoed)  # type: ignore[arg-type]
    return TextAssembly(MODEL, payload, num_logprobs=None)


def _update(offset: int, ids: Sequence[int], finish: SequenceFinish | None = None) -> SequenceUpdate:
    return SequenceUpdate(0, offset, pack_ids(ids), b"", finish)


@given(st.lists(PIECES, max_size=8), st.data())
def test_a_stream_resumed_at_any_cursor_by_another_router_gives_the_same_text(
    pieces: list[str], data: st.DataObject
) -> None:
    ids = list("".join(pieces).encode())
    cuts = sorted(data.draw(st.sets(st.integers(0, len(ids))), "cuts") | {0, len(ids)})
    change_at = data.draw(st.sampled_from(cuts), "where the router changes")
    assembly, text = _assembly(stop=["STOP!"], echoed="prompt STOP!"), ""

    for begin, end in zip(cuts, [*cuts[1:], len(ids)], strict=True):
        if begin == change_at:
            place = decode_cursor(assembly.cursor, 1).sequences[0]
            assembly = _assembly(stop=["STOP!"], echoed="prompt STOP!")
            assembly.replay([SequenceLog(pack_ids(ids[: place.offset]))], [place.closed])
        is_last = end == len(ids)
        text += assembly.tokens(_update(begin, ids[begin:end], STOP if is_last and begin != end else None)).text
    text += "".join(tokens.text for tokens in assembly.rest())

    assert text == "prompt STOP!" + "".join(pieces)


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none() -> None:
    assembly = _assembly(stop=["STOP"])

    first = assembly.tokens(_update(0, b"aST"))
    second = assembly.tokens(_update(3, b"b"))

    assert (first.text, second.text) == ("a", "STb")


def test_text_ends_before_a_stop_string_that_was_found() -> None:
    assembly = _assembly(stop=["STOP"])

    tokens = assembly.tokens(_update(0, b"aSTOP", SequenceFinish("stop", "STOP", 1)))

    assert tokens.text == "a"
    assert tokens.finish_reason == pb.FINISH_REASON_STOP


def test_a_token_that_ends_the_sequence_has_no_text_unless_it_was_asked_for() -> None:
    ids = [ord("a"), ord("!")]

    silent = _assembly(stop_token_ids=[ord("!")]).tokens(_update(0, ids, STOP))
    shown = _assembly(stop_token_ids=[ord("!")], include_stop_in_output=True).tokens(_update(0, ids, STOP))

    assert (silent.text, shown.text) == ("a", "a!")
    assert list(silent.token_ids) == ids


def test_special_tokens_are_shown_where_they_are_not_to_be_skipped() -> None:
    ids = [ord("a"), EOS]

    shown = _assembly(skip_special_tokens=False, ignore_eos=True).tokens(_update(0, ids))
    skipped = _assembly(ignore_eos=True).tokens(_update(0, ids))

    assert (shown.text, skipped.text) == (f"a{END_OF_TEXT}", "a")


def test_an_echoed_prompt_stands_once_before_each_sequence_and_counts_neither_for_stops_nor_for_their_ends() -> None:
    assembly = _assembly(n=2, stop=["STOP"], echoed="no STOP ")

    first = assembly.tokens(_update(0, b"ab"))
    more = assembly.tokens(_update(2, b"cSTOP", SequenceFinish("stop", "STOP", 3)))
    rest = list(assembly.rest())

    assert (first.text, more.text) == ("no STOP ab", "c")
    assert [(tokens.sequence, tokens.text) for tokens in rest] == [(1, "no STOP ")]


def test_a_stop_string_within_the_least_tokens_is_text() -> None:
    assembly = _assembly(stop=["b"], min_tokens=2)

    assert assembly.tokens(_update(0, b"ab")).text == "ab"
    assert assembly.tokens(_update(2, b"cb", SequenceFinish("stop", "b", 3))).text == "c"


def test_a_token_without_text_counts_towards_the_least_tokens() -> None:
    assembly = _assembly(stop=["b"], stop_token_ids=[ord("!")], min_tokens=2)

    assert assembly.tokens(_update(0, b"!ab")).text == "a"  # the third token may end the sequence, as for its leader


def test_what_a_finish_says_to_count_is_not_exceeded() -> None:
    assembly = _assembly(stop=["STOP"], stop_token_ids=[ord("P")])

    tokens = assembly.tokens(_update(0, b"aSTOP", SequenceFinish("stop", "STOP", 1)))

    assert tokens.text == "a"  # the token that completed the stop had no text here, so that the rest was held back


def test_a_character_whose_rest_never_came_is_told_at_the_end_and_the_cursor_says_so() -> None:
    assembly = _assembly()
    assembly.tokens(_update(0, "😀".encode()[:2]))

    rest = list(assembly.rest())

    assert [(tokens.offset, tokens.text) for tokens in rest] == [(2, "�")]
    assert decode_cursor(assembly.cursor, 1).sequences[0].closed
    again = _assembly()
    again.replay([SequenceLog(pack_ids("😀".encode()[:2]))], [True])
    assert list(again.rest()) == []


def test_the_end_names_each_sequences_reason_and_the_usage() -> None:
    end = RequestEnd(RequestState.CANCELLED, (3, 2), (SequenceFinish("stop", "X", 1), None), "by the client")

    message = finished(end, num_outputs=2, prompt_tokens=7)

    assert [(s.sequence, s.finish_reason, s.num_tokens, s.stop) for s in message.sequences] == [
        (0, pb.FINISH_REASON_STOP, 3, "X"),
        (1, pb.FINISH_REASON_CANCELLED, 2, ""),
    ]
    assert (message.usage.prompt_tokens, message.usage.completion_tokens) == (7, 5)
    assert (message.state, message.error) == (pb.REQUEST_STATE_CANCELLED, "by the client")
