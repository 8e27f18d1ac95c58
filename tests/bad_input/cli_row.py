"""One row of the tables of wrong command lines and wrong surroundings."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """What is wrong, the command line, and what its one line of error must name, each as it stands in it.

    In all words `{...}` is replaced by what the test has made: a folder, a port.
    """

    what: str
    line: str  # split at spaces; `_` stands for a space inside a word
    flag: str
    value: str
    bound: str
    remedy: str
    code: int = 1
    environment: dict[str, str] = field(default_factory=dict)

    def argv(self, made: dict[str, str]) -> list[str]:
        """The words of the command line."""
        return [word.replace("_", " ").format(**made) if word != "_" else "" for word in self.line.split(" ")]

    def told(self, made: dict[str, str]) -> tuple[str, ...]:
        """Everything that the error must contain."""
        return tuple(part.format(**made) for part in (self.flag, self.value, self.bound, self.remedy))
