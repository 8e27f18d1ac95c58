"""Requests of many clients at once: lengths, prefixes, numbers of outputs and what their clients do all differ."""

from dataclasses import dataclass
from enum import Enum

from shardline_protos import generation_pb2 as pb

MODEL = "smollm2"
_SHARED = (
    "You are the keeper of a small lighthouse on a rocky island. Every evening at sunset you climb its ninety steps, "
    "clean the great lens, fill the lamp with oil, and write into the book which ships have passed. People from the "
    "village come to you with questions, and you answer each of them kindly, shortly, and in plain words. "
)
_QUESTIONS = (
    "Why is the sea salt?",
    "How far can the light be seen on a clear night?",
    "Tell me a story about a whale and a very small boat that was lost in the fog.",
    "What did you write into the book yesterday?",
    "Is it lonely?",
)
_WORDS = ["storm", "rope", "gull", "tide", "anchor", "bread", "window", "salt", "wool", "kettle", "stone", "letter"]
LONG_OUTPUT = 64  # tokens: of clients that do not stay to the end


class Behaviour(Enum):
    """What a client does."""

    STAY = "stay"  # reads to the end
    CANCEL = "cancel"  # says so after the first tokens
    LEAVE = "leave"  # goes away after the first tokens; its request is to be cancelled then
    COME_BACK = "come back"  # goes away after the first tokens, and resumes where it was


@dataclass(frozen=True, slots=True)
class MixedRequest:
    """One client's request."""

    number: int
    behaviour: Behaviour
    request: pb.GenerateRequest


def mixed_requests(count: int) -> list[MixedRequest]:
    """Half with one long beginning in common; of eight clients one cancels, one leaves, one comes back, one wants
    three outputs."""
    return [_mixed(number) for number in range(count)]


def _mixed(number: int) -> MixedRequest:
    behaviour = {3: Behaviour.CANCEL, 4: Behaviour.LEAVE, 5: Behaviour.COME_BACK}.get(number % 8, Behaviour.STAY)
    stays = behaviour in (Behaviour.STAY, Behaviour.COME_BACK)
    sampling = pb.SamplingParams(
        temperature=0.0 if number % 3 else 0.9,
        seed=number,
        n=3 if number % 8 == 6 else 1,
        max_tokens=6 + number % 7 if stays else LONG_OUTPUT,
        ignore_eos=True,
    )
    request = pb.GenerateRequest(model=MODEL, text=_prompt(number), sampling=sampling)
    if behaviour is Behaviour.LEAVE:
        request.on_disconnect.cancel = True
    return MixedRequest(number, behaviour, request)


def _prompt(number: int) -> str:
    if number % 2:
        return f"{_SHARED}Visitor {number}: {_QUESTIONS[number % len(_QUESTIONS)]}\nKeeper:"
    words = [_WORDS[(number * 7 + place * 5) % len(_WORDS)] for place in range(1 + number * 11 % 90)]
    return f"{number}. {' '.join(words)}"
