"""Gemma 3 270M from its real GGUF file (Q4_K_M): text and logits against transformers on the same file.

In float32 the greedy tokens are equal, or at a difference the reference's two likeliest logits lie closer than 1e-3;
such ties are counted and printed. Native kernels lie within the formats' rounding: inputs of linear layers are int8.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Gemma3ForCausalLM

from shardline_workers.engine_config import EngineConfig
from shardline_workers.files.gguf_file import GgufFile
from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.kernels.native_library import NativeLibrary
from shardline_workers.text.gguf_tokenizer import build_gguf_tokenizer
from shardline_workers.text.gguf_tokenizer_data import GgufTokenizerData
from shardline_workers.text.hf_tokenizer import HfTokenizer
from tests.parity.gemma3_file import gemma3_gguf
from tests.parity.gemma3_oracle import gemma3_in_transformers
from tests.parity.greedy_runs import compare, run_greedily
from tests.parity.tiny_transformers import reference_logits
from tests.workers.text.varied_texts import varied_texts
from tests.workers.tiny_checkpoint import model_files

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(600)]

NUM_TOKENS = 24
TIE = 1e-3
STORY = (
    "Once upon a time, in a village by the river, there lived an old clockmaker who never slept. Every evening he wound"
    " the great clock of the tower, and every morning he listened to what it had to say about the day to come. "
)
TEXTS = (
    "The three laws of thermodynamics are",
    "Die Hauptstadt von Frankreich ist",
    "def fibonacci(n):\n    ",
    "日本の首都は",
    STORY * 13,  # longer than the window of most layers, 512 tokens
)
MEAN_DIVERGENCE = 0.006  # nats, of a token's distribution
MAX_DIVERGENCE = 0.06


@pytest.fixture(scope="module")
def path() -> Path:
    return gemma3_gguf()


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> HfTokenizer:
    with GgufFile.open(path) as file:
        return build_gguf_tokenizer(GgufTokenizerData(ModelFacts(path, file.metadata)))


@pytest.fixture(scope="module")
def prompts(tokenizer: HfTokenizer) -> list[tuple[int, ...]]:
    prompts = [tuple(tokenizer.encode(text, add_special_tokens=True)) for text in TEXTS]
    assert max(map(len, prompts)) > 512
    return prompts


@pytest.fixture(scope="module")
def oracle(path: Path) -> Gemma3ForCausalLM:
    return gemma3_in_transformers(path)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def config(path: Path, *, kernels: str, dtype: str) -> EngineConfig:
    return EngineConfig(
        files=model_files(path),
        kernels=kernels,
        dtype=dtype,
        max_num_seqs=len(TEXTS),
        max_num_batched_tokens=256,
        max_model_len=2048,
        kv_cache_tokens=4096,
        replicas_on_host=64,
    )


@pytest.mark.filterwarnings("ignore")  # of the oracle
def test_ids_are_those_of_transformers_on_the_same_file(path: Path, tokenizer: HfTokenizer) -> None:
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    texts = [*varied_texts(), "a" + 31 * " " + "b", 9 * "\n", "<table><b>x</b>", "<start_of_turn>user\nhi<end_of_turn>"]

    assert len(texts) > 600
    for text in texts:
        assert tokenizer.encode(text, add_special_tokens=True) == theirs.encode(text), repr(text)


def test_a_longer_run_of_spaces_is_cut_as_sentencepiece_does(tokenizer: HfTokenizer) -> None:
    """It takes the longest piece first, where transformers joins pieces by rank."""
    ids = tokenizer.encode("a" + 40 * " " + "b", add_special_tokens=False)

    assert [tokenizer.token_bytes(token_id, skip_special=True) for token_id in ids] == [b"a", 31 * b" ", 9 * b" ", b"b"]


def test_greedy_tokens_and_logits_are_those_of_transformers(
    path: Path, prompts: list[tuple[int, ...]], oracle: Gemma3ForCausalLM
) -> None:
    runs = run_greedily(config(path, kernels="reference", dtype="float32"), prompts, NUM_TOKENS)

    comparisons = [compare(run, reference_logits(oracle, run), tie=TIE) for run in runs]
    ties = [(number, step) for number, found in enumerate(comparisons) for step in found.ties]
    largest = max(found.largest_difference for found in comparisons)
    print(f"\nGemma 3: {len(runs)} prompts x {NUM_TOKENS} tokens, {len(ties)} ties {ties}, logits within {largest:.1e}")
    assert all(len(run.token_ids) == NUM_TOKENS for run in runs)
    assert largest < 1e-3


def test_native_logits_lie_within_the_formats_rounding(
    path: Path, prompts: list[tuple[int, ...]], oracle: Gemma3ForCausalLM, native_library: NativeLibrary
) -> None:
    runs = run_greedily(config(path, kernels="native", dtype="auto"), prompts, NUM_TOKENS)

    expected = torch.cat([reference_logits(oracle, run) for run in runs]).double()
    ours = torch.cat([torch.stack(run.logits) for run in runs]).double()
    divergences = (expected.softmax(dim=1) * (expected.log_softmax(dim=1) - ours.log_softmax(dim=1))).sum(dim=1)
    print(
        f"\nnative Gemma 3: {len(ours)} tokens, divergence {float(divergences.mean()):.1e} nats on average,"
        f" {float(divergences.max()):.1e} at most"
    )
    assert float(divergences.mean()) < MEAN_DIVERGENCE
    assert float(divergences.max()) < MAX_DIVERGENCE
