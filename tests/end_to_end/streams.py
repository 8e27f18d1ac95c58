"""What tests read from streams, and what a stream must be: no gap, no repeat, one end."""

from dataclasses import dataclass, field

from shardline import AsyncClient
from shardline.async_completion_stream import AsyncCompletionStream
from shardline.results import Finished, Tokens


@dataclass(slots=True)
class Heard:
    """Everything that a client heard of one request."""

    ids: dict[int, list[int]] = field(default_factory=dict)  # by sequence
    texts: dict[int, str] = field(default_factory=dict)
    finished: Finished | None = None
    num_messages: int = 0

    def take(self, event: object) -> None:
        """Adds one event; a gap, a repeat or a second end fails."""
        if isinstance(event, Tokens):
            ids = self.ids.setdefault(event.sequence, [])
            assert event.offset == len(ids), f"offset {event.offset} after {len(ids)} tokens"
            assert self.finished is None, "tokens after the end"
            ids.extend(event.token_ids)
            self.texts[event.sequence] = self.texts.get(event.sequence, "") + event.text
            self.num_messages += 1
        elif isinstance(event, Finished):
            assert self.finished is None, "a second end"
            self.finished = event

    @property
    def num_tokens(self) -> int:
        """Of all sequences."""
        return sum(len(ids) for ids in self.ids.values())


async def hear(stream: AsyncCompletionStream, *, until_tokens: int | None = None, into: Heard | None = None) -> Heard:
    """Reads a stream to its end, or until so many tokens have come."""
    heard = Heard() if into is None else into
    async for event in stream:
        heard.take(event)
        if until_tokens is not None and heard.num_tokens >= until_tokens:
            break
    return heard


async def whole_answer(client: AsyncClient, prompt: str, *, max_tokens: int, seed: int) -> Heard:
    """An undisturbed answer, to compare with."""
    async with client.stream(prompt, max_tokens=max_tokens, seed=seed) as stream:
        return await hear(stream)
