"""SmolLM2-135M from its real GGUF file in float32, ours against transformers' greedy tokens on the same weights.

Equal, or at a difference the reference's two likeliest logits lie closer than 1e-3, and equal again when it is forced
past that; such ties are counted and printed. Logits of every step lie within 1e-3.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from shardline_workers.engine_config import EngineConfig
from tests.parity.greedy_runs import compare, run_greedily
from tests.parity.smollm2_file import smollm2_gguf
from tests.parity.smollm2_oracle import smollm2_in_transformers, smollm2_tokenizer
from tests.parity.tiny_transformers import reference_logits
from tests.workers.tiny_checkpoint import model_files

NUM_TOKENS = 64
TIE = 1e-3
QUESTIONS = (
    "What is gravity?",
    "Write a haiku about the sea.",
    "List three uses of copper.",
    "Explain photosynthesis to a child in two sentences.",
    "What is 17 times 23? Show each step.",
    "Translate 'good morning' to French, German and Spanish.",
    "Who was Ada Lovelace, and what is she remembered for?",
    "Give me a recipe for pancakes with the amounts in grams.",
    "Write a Python function that reverses a list without using slices.",
    "Why do leaves change their colour in autumn?",
    "Summarise the story of Romeo and Juliet in one paragraph.",
    "Which planets have rings? Answer with a table.",
)
BEGINNINGS = (
    "Once upon a time, in a village by the river,",
    "The three laws of thermodynamics are",
    "def fibonacci(n):\n    ",
    "Dear Sir or Madam,\n\nI am writing to complain about",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # torch's threads spin at barriers: with a neighbour on the other core two are far slower than one.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def gguf_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2_gguf(tmp_path_factory.mktemp("smollm2"))


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_greedy_tokens_and_logits_are_those_of_transformers(gguf_path: Path) -> None:
    tokenizer = smollm2_tokenizer(gguf_path)
    texts = [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n" for question in QUESTIONS]
    prompts = [tuple(tokenizer.encode(text).ids) for text in (*texts, *BEGINNINGS)]
    config = EngineConfig(
        files=model_files(gguf_path),
        dtype="float32",
        max_num_seqs=len(prompts),
        max_num_batched_tokens=256,
        kv_cache_tokens=4096,
        replicas_on_host=64,
    )

    runs = run_greedily(config, prompts, NUM_TOKENS)

    oracle = smollm2_in_transformers(gguf_path)
    comparisons = [compare(run, reference_logits(oracle, run), tie=TIE) for run in runs]
    ties = [(number, step) for number, found in enumerate(comparisons) for step in found.ties]
    largest = max(found.largest_difference for found in comparisons)
    print(f"\nSmolLM2: {len(runs)} prompts x {NUM_TOKENS} tokens, {len(ties)} ties {ties}, logits within {largest:.1e}")
    assert len(runs) == 16
    assert all(len(run.token_ids) == NUM_TOKENS for run in runs)
    assert largest < 1e-3
