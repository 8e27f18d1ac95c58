"""The README's Python runs as it stands there, against a scripted router."""

import re
from pathlib import Path

import pytest

from tests.cluster.client.conftest import StartRouter

README = Path(__file__).parents[3] / "README.md"
TEXT = "Hello, world!"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_readme_has_programs() -> None:
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize(
    ("program", "printed"),
    list(zip(PROGRAMS, [TEXT, TEXT, TEXT[1:]], strict=True)),
    ids=["plain", "event loop", "resumed"],
)
def test_a_program_of_the_readme_prints_the_answer(
    program: str, printed: str, start_router: StartRouter, capfd: pytest.CaptureFixture[str]
) -> None:
    program = program.replace("127.0.0.1:50051", start_router().address)

    exec(compile(program, README.name, "exec"), {"__name__": "__main__"})

    assert capfd.readouterr().out == printed
