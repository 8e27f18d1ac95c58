"""The text side of the simulated engine: what a router needs where no model was given."""

import hashlib
from collections.abc import Mapping, Sequence

from shardline_workers.text.byte_tokenizer import NUM_BYTES, SPECIALS, TURN_END, TURN_START, VOCAB_SIZE, ByteTokenizer
from shardline_workers.text.text_model import TextModel

SIMULATED_NAME = "simulated"


class TurnTemplate:
    """Implements `ChatTemplate`: each message between the marks of a turn, its role in front."""

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """`<|im_start|>role\\ncontent<|im_end|>\\n` for each message; a missing field is empty."""
        turns = [_turn(message.get("role", ""), message.get("content", "")) for message in messages]
        return "".join(turns) + (f"{TURN_START}assistant\n" if add_generation_prompt else "")


def simulated_text_model(max_model_len: int) -> TextModel:
    """A model of bytes, of whichever context length the simulated engine was given."""
    return TextModel(
        name=SIMULATED_NAME,
        tokenizer=ByteTokenizer(),
        chat_template=TurnTemplate(),
        eos_ids=frozenset(range(NUM_BYTES, NUM_BYTES + len(SPECIALS))) - {NUM_BYTES + SPECIALS.index(TURN_START)},
        max_model_len=max_model_len,
        vocab_size=VOCAB_SIZE,
        weights_digest=hashlib.blake2b(b"simulated weights", digest_size=8).hexdigest(),
    )


def _turn(role: str, content: str) -> str:
    return f"{TURN_START}{role}\n{content}{TURN_END}\n"
