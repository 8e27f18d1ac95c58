import os
import signal
from collections.abc import Iterator

import pytest

from shardline_workers.text import template_process
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.template_process import TemplateProcess

SETUP = {
    "template": "{{ messages | length }}{{ 1 // messages | length }}",
    "globals": {},
    "max_characters": 1000,
    "max_memory_bytes": 1 << 30,
}


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    started = TemplateProcess(SETUP, time_limit_s=0.3)
    yield started
    started.close()


@pytest.mark.process
def test_an_error_of_the_template_leaves_the_process_alive(process: TemplateProcess) -> None:
    with pytest.raises(ChatTemplateError, match="ZeroDivisionError"):
        process.ask({"messages": []})

    assert process.ask({"messages": ["a"]}) == {"text": "11"}


@pytest.mark.process
@pytest.mark.parametrize("num_characters", [1, 1_000_000], ids=["a short request", "more than a pipe takes"])
def test_a_process_that_does_not_go_on_is_ended_in_time(
    num_characters: int, process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_process, "_GRACE_S", 0.0)
    os.kill(process._process.pid, signal.SIGSTOP)

    with pytest.raises(ChatTemplateError, match="does not answer"):
        process.ask({"messages": ["a" * num_characters]})

    assert not process.alive


@pytest.mark.process
def test_a_process_that_ended_says_how(process: TemplateProcess) -> None:
    os.kill(process._process.pid, signal.SIGKILL)

    with pytest.raises(ChatTemplateError, match="ended with code -9"):
        process.ask({"messages": ["a"]})


@pytest.mark.process
def test_closing_twice_does_no_harm(process: TemplateProcess) -> None:
    process.close()
    process.close()

    assert not process.alive
