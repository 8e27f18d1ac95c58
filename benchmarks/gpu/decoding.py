"""The engine alone on one or several devices, without a cluster: a model loaded, warmed up, and a few batches decoded.

    python -m benchmarks.gpu.decoding --model MODEL --device cuda --dtype bfloat16 --out result.json

For each batch size: seconds until all first tokens are there, and tokens a second from then on, greedy, medians of the
rounds. Needs no ray, redis or grpc. On a CPU it runs too, to try the script.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.surroundings import load_average, surroundings
from shardline_workers.engine import EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import resolve_model
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sharded_engine import ShardedEngine


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All batch sizes in turns, as often as there are rounds."""
    files = resolve_model(arguments.model, cache_folder=arguments.cache, report=_say)
    largest = max(arguments.batches)
    config = EngineConfig(
        files=files,
        device=arguments.device,
        dtype=arguments.dtype,
        kernels=arguments.kernels,
        plan=ParallelPlan(tp=arguments.tensor_parallel_size, pp=arguments.pipeline_parallel_size),
        max_num_seqs=largest,
        max_num_batched_tokens=max(512, largest),
        kv_cache_tokens=largest * (arguments.prompt_tokens + arguments.tokens + 64),
    )
    engine = load_engine(config, report=_say)
    rounds = [{size: decode(engine, size, arguments) for size in arguments.batches} for _ in range(arguments.rounds)]
    result = {
        "surroundings": surroundings(),
        "device": _device(arguments.device),
        "load": load_average(),
        "engine": engine.description.details,
        "configuration": {"prompt_tokens": arguments.prompt_tokens, "tokens": arguments.tokens},
        "batches": [_summary(size, [found[size] for found in rounds]) for size in arguments.batches],
    }
    engine.close()
    return result


def decode(engine: ShardedEngine, batch: int, arguments: argparse.Namespace) -> dict[str, float]:
    """One batch of prompts that share nothing."""
    sampling = Sampling(temperature=0.0, max_tokens=arguments.tokens)
    for number, prompt in enumerate(_prompts(batch, arguments.prompt_tokens, engine.description.vocab_size)):
        engine.add(EngineRequest(request_id=f"r{number}", prompt_ids=prompt, sampling=sampling, cache_salt=_salt()))
    began_s = time.perf_counter()
    waiting, first_s, num_later = {f"r{number}" for number in range(batch)}, 0.0, 0
    while engine.has_work():
        for step in engine.step().sequences:
            if step.request_id in waiting and step.token_ids:
                waiting.discard(step.request_id)
                first_s = time.perf_counter() - began_s
            elif not waiting:
                num_later += len(step.token_ids)
    return {"first_s": first_s, "tokens_per_s": num_later / (time.perf_counter() - began_s - first_s)}


def _prompts(batch: int, length: int, vocab_size: int) -> Iterator[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(batch)
    for _ in range(batch):
        yield tuple(torch.randint(3, vocab_size, (length,), generator=generator).tolist())


def _salt() -> str:
    """Another one for each request: no round finds the prefixes of the one before."""
    return str(time.perf_counter_ns())


def _summary(size: int, found: Sequence[dict[str, float]]) -> dict[str, Any]:
    names = ("first_s", "tokens_per_s")
    medians = {name: round(statistics.median(one[name] for one in found), 4) for name in names}
    return {"batch": size, **medians, "rounds": [{name: round(one[name], 4) for name in names} for one in found]}


def _device(name: str) -> dict[str, object]:
    if torch.device(name).type != "cuda":
        return {"name": name}
    properties = torch.cuda.get_device_properties(name)
    return {"name": properties.name, "memory_bytes": properties.total_memory, "cuda": torch.version.cuda}


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON object, and writes it where that is wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a GGUF file or a folder of safetensors")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kernels", default="auto")
    parser.add_argument("--tensor-parallel-size", type=int, default=1, help="default %(default)s")
    parser.add_argument("--pipeline-parallel-size", type=int, default=1, help="default %(default)s")
    parser.add_argument("--batches", type=_sizes, default=(1, 16), help="default 1,16")
    parser.add_argument("--prompt-tokens", type=int, default=128, help="default %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="default %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default %(default)s")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "shardline")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    text = json.dumps(measure(arguments), indent=2)
    if arguments.out is not None:
        arguments.out.write_text(f"{text}\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
