"""Our engine in a process of its own, which does one piece of work a line of standard input asks for.

    python -m benchmarks.compare.engine_child model.gguf

A line is a JSON object with `task` and its numbers; the answer is a line with a JSON object. In between the process
sleeps. It speaks to the engine through the `Engine` protocol.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.compare.points import ENGINE_DECODE_TOKENS, KV_CACHE_TOKENS, MAX_MODEL_LEN, MAX_SEQS, PROMPT_TOKENS
from benchmarks.compare.prompt_perplexity import prompt_perplexity
from benchmarks.process_tree import pss_mib
from benchmarks.random_prompts import random_prompt
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_cluster.replica.replica_process import prefer_steps
from shardline_workers.engine import Engine, EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles, resolve_model
from shardline_workers.text.load_text_model import load_text_model

_SLACK_TOKENS = 16  # sequences that were prefilled first decode on while the others are


class Workbench:
    """An engine, and random prompts for it that never begin alike."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine
        self._rng = random.Random(seed)
        self._num_requests = 0

    def decode(self, size: int, least_s: float) -> float:
        """Tokens a second of so many sequences, each of them behind a prompt; repeated until it took long enough."""
        return _rate(lambda: self._decode_once(size), least_s)

    def prefill(self, size: int, least_s: float) -> float:
        """Tokens a second from the arrival of one prompt to its first token; repeated until it took long enough."""
        self._run_alone(size)
        return _rate(lambda: (size, self._run_alone(size)), least_s)

    def fill(self) -> None:
        """Lets every token of the KV cache's capacity be written once."""
        each = KV_CACHE_TOKENS // MAX_SEQS
        for _ in range(MAX_SEQS):
            self._add(each - _SLACK_TOKENS, max_tokens=_SLACK_TOKENS)
        while self._engine.has_work():
            self._engine.step()

    def _decode_once(self, size: int) -> tuple[int, float]:
        running = [self._add(PROMPT_TOKENS, max_tokens=ENGINE_DECODE_TOKENS + _SLACK_TOKENS) for _ in range(size)]
        waiting = set(running)
        while waiting:
            waiting -= {step.request_id for step in self._engine.step().sequences if step.token_ids}
        began = time.perf_counter()
        num_tokens = 0
        for _ in range(ENGINE_DECODE_TOKENS):
            num_tokens += sum(len(step.token_ids) for step in self._engine.step().sequences)
        took_s = time.perf_counter() - began
        assert num_tokens == size * ENGINE_DECODE_TOKENS, (
            f"only {num_tokens} tokens: not all sequences ran all the time"
        )
        for request_id in running:
            self._engine.cancel(request_id)
        return num_tokens, took_s

    def _run_alone(self, size: int) -> float:
        began = time.perf_counter()
        self._add(size, max_tokens=1)
        while self._engine.has_work():
            self._engine.step()
        return time.perf_counter() - began

    def _add(self, num_tokens: int, *, max_tokens: int) -> str:
        self._num_requests += 1
        request_id = str(self._num_requests)
        prompt = random_prompt(self._rng, num_tokens, vocab_size=self._engine.description.vocab_size)
        sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
        self._engine.add(EngineRequest(request_id=request_id, prompt_ids=prompt, sampling=sampling))
        return request_id


def _rate(once: Callable[[], tuple[int, float]], least_s: float) -> float:
    num_tokens, took_s = once()
    while took_s < least_s:
        more, seconds = once()
        num_tokens, took_s = num_tokens + more, took_s + seconds
    return num_tokens / took_s


def main() -> None:
    """Loads, and answers until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="as for `shardline serve`")
    parser.add_argument("--seed", type=int, default=0, help="of prompts")
    parser.add_argument("--block-size", type=int, help="of the KV cache; by default what the kernels like best")
    arguments = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")  # whatever else prints goes to standard error
    os.dup2(2, 1)
    prefer_steps()
    before_mib = pss_mib([os.getpid()])
    files = resolve_model(arguments.model, cache_folder=default_cache_folder(), report=_to_stderr)
    engine = _load(files, block_size=arguments.block_size)
    tasks = _tasks(engine, files, workbench=Workbench(engine, arguments.seed), before_mib=before_mib)
    print(json.dumps(engine.description.details), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(tasks[asked.pop("task")](**asked)), file=answers, flush=True)
    engine.close()


def _load(files: ModelFiles, *, block_size: int | None) -> Engine:
    config = EngineConfig(
        files=files,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=MAX_SEQS,
        kv_cache_tokens=KV_CACHE_TOKENS,
        block_size=block_size,
    )
    return load_engine(config, report=_to_stderr)


def _tasks(
    engine: Engine, files: ModelFiles, *, workbench: Workbench, before_mib: float
) -> Mapping[str, Callable[..., dict[str, Any]]]:
    def memory() -> dict[str, Any]:
        workbench.fill()
        return {"before_mib": before_mib, "filled_mib": pss_mib([os.getpid()])}

    def perplexity(text: str, chunk_tokens: int) -> dict[str, Any]:
        tokenizer = load_text_model(files, name="text", chat_template=None).tokenizer
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        return asdict(prompt_perplexity(engine, token_ids, chunk_tokens=chunk_tokens))

    return {
        "decode": lambda **numbers: {"tokens_per_s": workbench.decode(**numbers)},
        "prefill": lambda **numbers: {"tokens_per_s": workbench.prefill(**numbers)},
        "memory": memory,
        "perplexity": perplexity,
    }


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
