"""Where the native kernels' time goes: one prompt and steps of decoding, by kind of operation and matrix.

    python -m benchmarks.kernel_profile --model smollm2:135m
    python -m benchmarks.kernel_profile --instruction-sets amx,avx512-vnni --batches 1,4,16 --out result.json

One thread computes. Each step is measured many times, and of each operation the shortest time counts: other processes
that take the core meanwhile can only lengthen it.

Prints one JSON object with commit, machine, configuration and figures.
"""

import argparse
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.random_prompts import random_prompt
from benchmarks.surroundings import load_average, surroundings
from shardline_cluster.replica.model_location import default_cache_folder
from shardline_workers.engine import Engine, EngineRequest, Sampling
from shardline_workers.engine_config import EngineConfig
from shardline_workers.engine_loading import load_engine
from shardline_workers.files.model_source import ModelFiles, resolve_model
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.kernels import RunTimes
from shardline_workers.kernels.native_program import NativeProgram
from shardline_workers.kernels.step_buffers import StepCount

_DECODE_STEPS = 40
_CONTEXT = 128  # tokens of each sequence before it decodes
_KV_CACHE_TOKENS = 16384
_ONE_THREAD = 1 << 10  # so many replicas on this host leave each of them one


@dataclass
class Profile:
    """The shortest time of each operation of each kind of step."""

    shortest_ns: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # by tokens of the step, [operations]
    labels: list[str] = field(default_factory=list)  # of the operations

    def book(self, num_tokens: int, spent_ns: NDArray[np.int64]) -> None:
        """Takes one run's times up."""
        known = self.shortest_ns.get(num_tokens)
        self.shortest_ns[num_tokens] = spent_ns if known is None else np.minimum(known, spent_ns)

    def figures(self, num_tokens: int) -> dict[str, object]:
        """Milliseconds of a step with so many tokens, whole and by label, the longest first."""
        spent_ms: dict[str, float] = {}
        for label, spent_ns in zip(self.labels, self.shortest_ns[num_tokens], strict=True):
            spent_ms[label] = spent_ms.get(label, 0.0) + int(spent_ns) * 1e-6
        total = sum(spent_ms.values())
        ordered = sorted(spent_ms.items(), key=lambda item: -item[1])
        operations = {label: {"ms": round(ms, 3), "share": round(ms / total, 3)} for label, ms in ordered}
        return {"tokens": num_tokens, "step_ms": round(total, 3), "operations": operations}


def label_of(op: api.Op) -> str:
    """Kind of an operation, and the size of its matrix."""
    name = api.OpKind(op.kind).name.lower()
    if op.kind not in (api.OpKind.LINEAR, api.OpKind.GATED_LINEAR):
        return name
    operands = op.operands.linear if op.kind == api.OpKind.LINEAR else op.operands.gated_linear
    weight = operands.weight
    return f"{name} {weight.num_inputs} → {weight.num_outputs} {api.Format(weight.format).name}"


@contextmanager
def profiled() -> Iterator[Profile]:
    """While it lasts, native programs are timed operation by operation."""
    profile = Profile()
    original = NativeProgram.run

    def run(program: NativeProgram, num_threads: int) -> RunTimes:
        recording = program.recording
        spent_ns = np.zeros(len(recording.ops), dtype=np.int64)
        times = original(program, num_threads, operation_ns=spent_ns)
        profile.labels = [label_of(op) for op in recording.ops]
        profile.book(int(recording.step.header[StepCount.TOKENS]), spent_ns)
        return times

    NativeProgram.run = run  # type: ignore[method-assign, assignment]
    try:
        yield profile
    finally:
        NativeProgram.run = original  # type: ignore[method-assign]


def profile_prompt(engine: Engine, *, num_tokens: int, rounds: int) -> dict[str, object]:
    """A prompt of so many tokens, in one step."""
    with profiled() as profile:
        for number in range(rounds):
            _add(engine, f"prompt-{number}", num_prompt_tokens=num_tokens, max_tokens=1)
            _finish(engine)
    return {"phase": "prompt", **profile.figures(num_tokens)}


def profile_decoding(engine: Engine, *, batch: int) -> dict[str, object]:
    """Steps of so many sequences, a token each."""
    for number in range(batch):
        _add(engine, f"decode-{batch}-{number}", num_prompt_tokens=_CONTEXT, max_tokens=2 * _DECODE_STEPS)
    for _ in range(_DECODE_STEPS):  # all prompts are through, all sequences decode
        engine.step()
    with profiled() as profile:
        for _ in range(_DECODE_STEPS // 2):
            engine.step()
    _finish(engine)
    return {"phase": "decoding", **profile.figures(batch)}


def _add(engine: Engine, name: str, *, num_prompt_tokens: int, max_tokens: int) -> None:
    prompt = random_prompt(random.Random(name), num_prompt_tokens, vocab_size=engine.description.vocab_size)
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    engine.add(EngineRequest(request_id=name, prompt_ids=prompt, sampling=sampling))


def _finish(engine: Engine) -> None:
    while engine.has_work():
        engine.step()


def measure(files: ModelFiles, instruction_set: str, arguments: argparse.Namespace) -> dict[str, object]:
    """All steps on one instruction set; "" is the fastest."""
    batches = [int(batch) for batch in arguments.batches.split(",")]
    config = EngineConfig(
        files=files,
        kernels="native",
        max_num_seqs=max(batches),
        max_num_batched_tokens=max(arguments.prompt_tokens, *batches),
        kv_cache_tokens=_KV_CACHE_TOKENS,
        enable_prefix_caching=False,
        replicas_on_host=_ONE_THREAD,
    )
    environment = {**os.environ, "SHARDLINE_INSTRUCTION_SET": instruction_set}
    engine = load_engine(config, report=lambda _: None, environment=environment)
    try:
        prompt = profile_prompt(engine, num_tokens=arguments.prompt_tokens, rounds=arguments.rounds)
        steps = [profile_decoding(engine, batch=batch) for batch in batches]
        return {"instruction_set": engine.description.details["instruction_set"], "steps": [prompt, *steps]}
    finally:
        engine.close()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2:135m", help="as for `shardline serve` (default %(default)s)")
    parser.add_argument("--instruction-sets", default="", help="names, separated by commas (default: the fastest)")
    parser.add_argument("--prompt-tokens", type=int, default=512, help="(default %(default)s)")
    parser.add_argument("--batches", default="1,4,16", help="numbers of sequences (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="prompts, of which the shortest times count")
    parser.add_argument("--out", type=Path, help="a file for the JSON, beside the output")
    arguments = parser.parse_args()
    files = resolve_model(arguments.model, cache_folder=default_cache_folder(), report=lambda _: None)
    before = load_average()
    result = {
        "benchmark": "kernel_profile",
        **surroundings(),
        "configuration": {name: str(value) for name, value in vars(arguments).items() if value is not None},
        "figures": [measure(files, name, arguments) for name in arguments.instruction_sets.split(",")],
        "load_average": {"before": before, "after": load_average()},
    }
    text = json.dumps(result, indent=1, ensure_ascii=False)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
