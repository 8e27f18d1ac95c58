"""The API key on its way: with every call of every kind, and in no message."""

from typing import Any

import pytest

from shardline.errors import InvalidArgumentError
from shardline.keyed_channel import KeyedChannel, checked_key


class Recorder:
    """A channel that notes what its calls are given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.closed = False

    def unary_unary(self, *_: Any, **__: Any) -> Any:
        return self

    unary_stream = stream_unary = stream_stream = unary_unary

    def __call__(self, request: Any, **options: Any) -> str:
        self.calls.append((request, options))
        return "answer"

    future = __call__

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_every_kind_of_call_shows_the_key_beside_its_own_metadata(kind: str) -> None:
    recorder = Recorder()
    method = getattr(KeyedChannel(recorder, "sl-key"), kind)("/a.Service/Method")

    assert method("request", timeout=3) == "answer"
    assert method.future("later", metadata=(("x", "y"),)) == "answer"

    bearer = ("authorization", "Bearer sl-key")
    assert recorder.calls == [
        ("request", {"timeout": 3, "metadata": (bearer,)}),
        ("later", {"metadata": (("x", "y"), bearer)}),
    ]


def test_closing_it_closes_the_channel() -> None:
    recorder = Recorder()

    KeyedChannel(recorder, "sl-key").close()

    assert recorder.closed


@pytest.mark.parametrize("key", ["", "two words", "line\n", "schlüssel", "nul\0"])
def test_what_metadata_cannot_carry_is_refused_without_a_word_of_it(key: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{len(key)} characters") as refused:
        checked_key(key)

    assert not key or key not in str(refused.value)
