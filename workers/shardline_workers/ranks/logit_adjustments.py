"""Which logits of a slot's sequence are changed before each choice: biases, penalties, forbidden tokens.

All of it follows from the sequence's tokens and its request, so that a sequence that was preempted, or that another
replica began, goes on as if nothing had been. A step costs what its new tokens cost: entries are never made anew.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from shardline_workers.engine import Sampling
from shardline_workers.kernels.sampling_buffers import NEVER_SEEN, Adjustments
from shardline_workers.scheduling.step_plan import SlotChunk, SlotStart

MAX_NAMED_IDS = 2048  # tokens of one request that need not stand in its prompt or output: biased or forbidden ones


def check_named_ids(sampling: Sampling, *, vocab_size: int) -> None:
    """Passes a request whose biased and forbidden tokens are the model's, and not too many.

    Raises:
        ValueError: they are not.
    """
    if sampling.num_named_ids > MAX_NAMED_IDS:
        raise ValueError(
            f"logit_bias, stop ids and bad words name {sampling.num_named_ids} tokens, but at most {MAX_NAMED_IDS} can"
            " be named"
        )
    biased = (token_id for token_id, _ in sampling.logit_bias)
    for token_id in (*biased, *(word[-1] for word in sampling.bad_words)):
        if not 0 <= token_id < vocab_size:
            raise ValueError(
                f"logit_bias or a bad word names token id {token_id}, but the vocabulary is 0 to {vocab_size - 1}"
            )


class LogitAdjustments:
    """Writes the host's `Adjustments`. One entry for each token that is named or, with penalties, was seen."""

    def __init__(self, adjustments: Adjustments, *, vocab_size: int) -> None:
        self._lengths: NDArray[np.int64] = adjustments.lengths.numpy()
        self._ids: NDArray[np.int32] = adjustments.ids.numpy()
        self._biases: NDArray[np.float32] = adjustments.biases.numpy()
        self._occurrences: NDArray[np.int32] = adjustments.occurrences.numpy()
        self._vocab_size = vocab_size
        self._sequences: dict[int, _AdjustedSequence] = {}  # by slot, those with adjustments only

    def enter(self, start: SlotStart) -> None:
        """A sequence enters its slot."""
        self._sequences.pop(start.slot, None)
        if not start.sampling.adjusts_logits:
            return
        sequence = _AdjustedSequence(start, vocab_size=self._vocab_size)
        self._sequences[start.slot] = sequence
        self._add(start.slot, sequence, sequence.first_occurrences())

    def adjusts(self, slot: int) -> bool:
        """Whether the sequence in this slot has adjustments."""
        return slot in self._sequences

    def advance(self, chunk: SlotChunk) -> None:
        """Makes a slot's entries those of the choice that follows on this chunk."""
        slot, sequence = chunk.slot, self._sequences[chunk.slot]
        new_ids = chunk.token_ids[max(0, sequence.num_known - chunk.start) :]
        sequence.output.extend(new_ids)
        if sequence.sampling.has_penalties:
            self._count(slot, sequence, new_ids)
        forbidden = sequence.forbidden_ids()
        for token_id in sequence.forbidden ^ forbidden:
            bias = -np.inf if token_id in forbidden else sequence.biases.get(token_id, 0.0)
            self._biases[slot, sequence.entries[token_id]] = bias
        sequence.forbidden = forbidden

    def _count(self, slot: int, sequence: "_AdjustedSequence", token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            entry = sequence.entries.get(token_id)
            if entry is None:
                self._add(slot, sequence, {token_id: 1})
            else:
                self._occurrences[slot, entry] = max(0, self._occurrences[slot, entry]) + 1

    def _add(self, slot: int, sequence: "_AdjustedSequence", occurrences: dict[int, int]) -> None:
        first = len(sequence.entries)
        end = first + len(occurrences)
        self._ids[slot, first:end] = list(occurrences)
        self._biases[slot, first:end] = [sequence.biases.get(token_id, 0.0) for token_id in occurrences]
        self._occurrences[slot, first:end] = list(occurrences.values())
        self._lengths[slot] = end
        sequence.entries.update(zip(occurrences, range(first, end), strict=True))


class _AdjustedSequence:
    """What a slot's entries are made from."""

    def __init__(self, start: SlotStart, *, vocab_size: int) -> None:
        self.sampling: Sampling = start.sampling
        self.prompt_ids = start.token_ids[: start.num_prompt_tokens]
        self.output = list(start.token_ids[start.num_prompt_tokens :])
        self.entries: dict[int, int] = {}  # token id → place in the slot's row
        self.biases = dict(start.sampling.logit_bias)
        self.forbidden: set[int] = set()
        # A stop id beyond the vocabulary (a tokenizer may have more tokens than the model) is never chosen anyway.
        stop_ids = start.sampling.stop_token_ids if start.sampling.min_tokens > 0 else frozenset[int]()
        self._stop_ids = {token_id for token_id in stop_ids if token_id < vocab_size}
        self._followers: dict[tuple[int, ...], set[int]] = defaultdict(set)  # ids that may not follow these
        for word in start.sampling.bad_words:
            self._followers[word[:-1]].add(word[-1])
        self._beginning_lengths = sorted({len(beginning) for beginning in self._followers})

    @property
    def num_known(self) -> int:
        """Tokens of prompt and output that were taken in."""
        return len(self.prompt_ids) + len(self.output)

    def first_occurrences(self) -> dict[int, int]:
        """Every token that needs an entry, and how often it stands in the output."""
        named = {*self.biases, *self._stop_ids, *(word[-1] for word in self.sampling.bad_words)}
        occurrences = dict.fromkeys(sorted(named), NEVER_SEEN)
        if self.sampling.has_penalties:
            occurrences |= dict.fromkeys(self.prompt_ids, 0)
            occurrences |= Counter(self.output)
        return occurrences

    def forbidden_ids(self) -> set[int]:
        """Tokens that cannot come next: stop ids while the output is too short, and the ends of bad words."""
        forbidden = set(self._stop_ids) if len(self.output) < self.sampling.min_tokens else set()
        for length in self._beginning_lengths:
            if length <= len(self.output):
                forbidden |= self._followers.get(tuple(self.output[len(self.output) - length :]), set())
        return forbidden
