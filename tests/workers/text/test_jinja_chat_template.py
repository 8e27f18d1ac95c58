import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.jinja_chat_template import MAX_TEMPLATE_CHARACTERS, JinjaChatTemplate

TURNS = (
    "{{ bos_token }}{% for message in messages %}[{{ message['role'] }}] {{ message.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
CHAT = [{"role": "system", "content": " be brief "}, {"role": "user", "content": "Hällo 🚀"}]

Make = Callable[..., JinjaChatTemplate]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[JinjaChatTemplate] = []

    def template(source: str, **options: Any) -> JinjaChatTemplate:
        made.append(JinjaChatTemplate(source, special_tokens={"bos_token": "<s>"}, **options))
        return made[-1]

    yield template
    for each in made:
        each.close()


def process_id(template: JinjaChatTemplate) -> int:
    assert template._process is not None
    return template._process._process.pid


@pytest.mark.process
def test_a_chat_is_rendered_with_special_tokens_and_a_prompt_to_answer(make: Make) -> None:
    template = make(TURNS)

    prompts = [template.render(CHAT, add_generation_prompt=add) for add in (True, False)]

    assert prompts == ["<s>[system] be brief\n[user] Hällo 🚀\n[assistant] ", "<s>[system] be brief\n[user] Hällo 🚀\n"]


@pytest.mark.process
def test_threads_share_one_process_and_get_their_own_prompts(make: Make) -> None:
    template = make("{{ messages[0].content }}")
    prompts: dict[int, str] = {}

    def render(number: int) -> None:
        prompts[number] = template.render(
            [{"role": "user", "content": str(number) * 10_000}], add_generation_prompt=True
        )

    threads = [threading.Thread(target=render, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert prompts == {number: str(number) * 10_000 for number in range(8)}


@pytest.mark.process
@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{{ 'a' * 10**11 }}", "more than its limit of 1024 MiB of memory"),
        ("{% include '/etc/passwd' %}", "'/etc/passwd', but a chat template stands alone"),
        ("{% from 'other' import a %}", "'other', but a chat template stands alone"),
        ("{{ messages[0].nothing.more }}", "UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ raise_exception('only user and assistant') }}", "only user and assistant"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError"),
        ("{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}", "more than 16777216 characters"),
    ],
)
def test_a_template_that_fails_says_why_and_the_next_prompt_is_served(source: str, why: str, make: Make) -> None:
    template = make(f"{{% if messages[0].role == 'bad' %}}{source}{{% endif %}}ok")

    with pytest.raises(ChatTemplateError, match=why):
        template.render([{"role": "bad", "content": ""}], add_generation_prompt=True)

    assert template.render([{"role": "good", "content": ""}], add_generation_prompt=True) == "ok"


@pytest.mark.process
@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set n = namespace(a=[1]) %}{% for i in range(60) %}{% set n.a = [n.a, n.a] %}{% endfor %}{{ n.a }}",
        "{{ messages[0].role | center(10**9) }}",
    ],
)
def test_a_template_that_does_not_end_is_stopped_and_its_process_is_gone(source: str, make: Make) -> None:
    template = make(f"{{% if messages %}}{source}{{% endif %}}ok", time_limit_s=0.3)
    template.render([], add_generation_prompt=True)
    pid = process_id(template)

    with pytest.raises(ChatTemplateError, match=r"longer than its limit of 0\.3 s of CPU|want of memory|MiB of memory"):
        template.render([{"role": "user", "content": ""}], add_generation_prompt=True)
    template.close()

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert template.render([], add_generation_prompt=True) == "ok"


@pytest.mark.process
def test_constants_that_would_be_computed_while_compiling_are_stopped_too(make: Make) -> None:
    template = make("{{ 'a' | center(10**9) | length }}", time_limit_s=0.3)

    with pytest.raises(ChatTemplateError, match=r"longer than|memory"):
        template.render(CHAT, add_generation_prompt=True)


@pytest.mark.process
def test_a_process_that_somebody_killed_is_replaced(make: Make) -> None:
    template = make("ok")
    template.render([], add_generation_prompt=True)
    pid = process_id(template)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert template.render([], add_generation_prompt=True) == "ok"
    assert process_id(template) != pid


@pytest.mark.process
def test_the_process_sees_no_secrets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@somewhere")
    template = make("ok")
    template.render([], add_generation_prompt=True)

    environment = Path(f"/proc/{process_id(template)}/environ").read_bytes()

    assert b"PATH" in environment
    assert b"secret" not in environment


@pytest.mark.process
def test_a_forgotten_template_takes_its_process_with_it(make: Make) -> None:
    template = JinjaChatTemplate("ok")
    template.render([], add_generation_prompt=True)
    pid = process_id(template)

    del template

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ a",
        "{% endif %}",
        "{% unknown %}",
        "{{" + "(" * 100_000 + "}}",
        "{{ " + "9" * 5000 + " }}",
        "{% for i x" + "9" * 5000 + " %}",
    ],
)
def test_what_is_no_template_is_refused_shortly_and_before_anything_runs(source: str) -> None:
    with pytest.raises(
        ChatTemplateError, match=r"\Athe chat template is no valid Jinja( in line \d+)?: .{1,500}\. Mend it, .*\Z"
    ):
        JinjaChatTemplate(source)


def test_what_is_far_too_long_is_refused() -> None:
    with pytest.raises(ChatTemplateError, match="at most 1048576"):
        JinjaChatTemplate("a" * (MAX_TEMPLATE_CHARACTERS + 1))


def test_checking_a_template_computes_nothing() -> None:
    started = time.perf_counter()

    JinjaChatTemplate("{{ 'a' | center(10**10) }}")

    assert time.perf_counter() - started < 5


@pytest.mark.process
@pytest.mark.filterwarnings("ignore")  # of the oracle
def test_prompts_are_those_of_transformers(make: Make) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    sources = [
        TURNS,
        "{%- for m in messages %}\n  {%- if loop.first %}\n  first\n  {%- endif %}\n{{ m | tojson }}\n{%- endfor %}\n",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}\n\n",
        "{% generation %}{{ messages[-1]['content'] }}{% endgeneration %}{{ tools }}",
    ]
    for source in sources:
        theirs, _ = render_jinja_template([CHAT], chat_template=source, add_generation_prompt=True, bos_token="<s>")
        assert make(source).render(CHAT, add_generation_prompt=True) == theirs[0]
