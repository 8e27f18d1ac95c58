import io
import json
from datetime import datetime
from typing import Any

import pytest
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from shardline_workers.text.template_child import TemplateServer, render, serve, template_environment


def rendered(source: str, *, max_characters: int = 1000, **variables: Any) -> str:
    return render(template_environment().from_string(source), variables, max_characters=max_characters)


def test_blocks_leave_no_white_space_behind() -> None:
    assert rendered("a\n  {% if true %}\nb\n  {% endif %}\nc\n") == "a\nb\nc"


def test_json_is_plain_and_not_escaped_for_html() -> None:
    assert rendered("{{ value | tojson }}", value={"a": "<é>"}) == '{"a": "<é>"}'
    assert rendered("{{ value | tojson(indent=2) }}", value=[1]) == "[\n  1\n]"


def test_a_template_can_ask_for_the_date_and_leave_loops() -> None:
    assert rendered("{{ strftime_now('%Y') }}") == str(datetime.now().year)
    assert rendered("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "01"


def test_what_is_marked_as_generated_is_content() -> None:
    assert rendered("a{% generation %}b{{ c }}{% endgeneration %}d", c="c") == "abcd"


def test_a_template_can_refuse() -> None:
    with pytest.raises(TemplateError, match="roles must alternate"):
        rendered("{{ raise_exception('roles must alternate') }}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format(1) }}",
    ],
)
def test_pythons_insides_and_changes_are_refused(source: str) -> None:
    with pytest.raises(SecurityError):
        rendered(source, messages=[])


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(TemplateError, match="more than 10 characters"):
        rendered("{% for i in range(9) %}ab{% endfor %}", max_characters=10)


def replies_to(template: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    limits = {"time_limit_s": 60, "max_characters": 1000, "max_memory_bytes": 1 << 60}
    server = TemplateServer({"template": template, "globals": {"bos_token": "<s>"}, **limits})
    output = io.BytesIO()
    server.answer(server.compile, output)
    for request in requests:
        server.answer(lambda request=request: server.render(request), output)  # type: ignore[misc]
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_each_request_has_its_reply_and_a_failure_is_one_too() -> None:
    template = "{{ bos_token }}{{ messages[0].role.upper() }}{{ tools is none }}"

    replies = replies_to(template, {"messages": [{"role": "a"}]}, {"messages": []}, {"messages": [{"role": "b"}]})

    assert [list(reply) for reply in replies] == [["ready"], ["text"], ["error"], ["text"]]
    assert (replies[1]["text"], replies[3]["text"]) == ("<s>ATrue", "<s>BTrue")
    assert "UndefinedError" in replies[2]["error"]


def test_a_template_that_does_not_compile_is_told() -> None:
    assert "nonsense" in replies_to("{{ 1 | nonsense }}")[0]["error"]


def test_without_a_setup_the_process_ends() -> None:
    output = io.BytesIO()

    serve(io.BytesIO(b""), output)

    assert output.getvalue() == b""
