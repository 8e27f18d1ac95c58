"""Every kind of sampling in one request, on a tiny real model: its replica is killed, and nothing of it is lost."""

import os
import signal
from pathlib import Path

import pytest

from shardline import AsyncClient, Started
from shardline.async_completion_stream import AsyncCompletionStream
from shardline.requests import RequestOptions
from shardline.results import Completion, Event
from tests.end_to_end.served_cluster import LOCAL_REPLICA, served_cluster
from tests.workers.text.tiny_vocabulary import byte_level_json, write_json
from tests.workers.tiny_checkpoint import VOCAB_SIZE, write_tiny_checkpoint

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

PROMPT = tuple((7 * number + 3) % VOCAB_SIZE for number in range(50))
OPTIONS: RequestOptions = {
    "temperature": 1.1,
    "seed": 5,
    "n": 2,
    "max_tokens": 180,
    "min_tokens": 170,
    "stop_token_ids": [4, 9],
    "repetition_penalty": 1.1,
    "frequency_penalty": 0.05,
    "presence_penalty": -0.3,
    "logit_bias": {11: 2.0, 12: -100.0},
    "logprobs": 2,
    "prompt_logprobs": 3,
    "echo": True,
}


def _model(folder: Path) -> Path:
    """Its words are those of another vocabulary: only ids are sent."""
    path = write_tiny_checkpoint(folder).path
    write_json(path / "tokenizer.json", byte_level_json())
    return path


async def _read(stream: AsyncCompletionStream, *, until_tokens: int | None = None) -> list[Event]:
    events: list[Event] = []
    async for event in stream:
        events.append(event)
        if until_tokens is not None and sum(len(getattr(e, "token_ids", ())) for e in events) >= until_tokens:
            break
    return events


def _told(completion: Completion) -> object:
    """Everything of a completion that does not name its request, and is no log-probability."""
    outputs = [(output.token_ids, output.text, output.finish_reason) for output in completion.outputs]
    return outputs, completion.prompt_token_ids, completion.usage


def _logprobs(completion: Completion) -> list[float]:
    records = [record for output in completion.outputs for record in output.logprobs]
    records += [record for record in completion.prompt_logprobs if record is not None]
    return [number for record in records for number in (record.logprob, *(token.logprob for token in record.top))]


async def test_a_killed_replica_changes_neither_tokens_nor_log_probabilities_nor_echo(tmp_path: Path) -> None:
    # In float64, since plain torch sums a batch otherwise than a sequence alone.
    flags = ("--launcher", "local", "--max-model-len", "256", "--dtype", "float64", "--kv-cache-tokens", "4096")
    with served_cluster(str(_model(tmp_path / "tiny")), *flags) as cluster:
        async with AsyncClient(cluster.endpoint) as client:
            undisturbed = client.stream(PROMPT, **OPTIONS)
            await _read(undisturbed)

            disturbed = client.stream(PROMPT, **OPTIONS)
            before = await _read(disturbed, until_tokens=len(PROMPT) + 30)
            for pid in cluster.pids(LOCAL_REPLICA):
                os.kill(pid, signal.SIGKILL)
            after = await _read(disturbed)

            again = client.resume(str(disturbed.request_id))
            await _read(again)
            completions = [await stream.result() for stream in (undisturbed, disturbed, again)]

    assert any(isinstance(event, Started) and event.attempt == 2 for event in after), "the replica had done all before"
    assert not any(isinstance(event, Started) and event.attempt == 2 for event in before)
    assert _told(completions[0]) == _told(completions[1]) == _told(completions[2])
    whole, *others = completions
    assert all(_logprobs(other) == pytest.approx(_logprobs(whole), abs=1e-5) for other in others)
    assert whole.prompt_token_ids == PROMPT
    assert [told is None for told in whole.prompt_logprobs] == [True] + [False] * (len(PROMPT) - 1)
    for output in whole.outputs:
        assert 170 < len(output.token_ids) <= 180
        assert not {4, 9} & set(output.token_ids[:170])
        assert 12 not in output.token_ids
        assert len(output.logprobs) == len(output.token_ids)
