"""A chat template in a file of its own, beside a model or given by a user."""

from pathlib import Path

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.jinja_chat_template import MAX_TEMPLATE_CHARACTERS


def read_template(path: Path) -> str | None:
    """The file's text, one character more than a template may have at the most; None where there is no such file.

    Raises:
        ModelFileError: it cannot be read, or is no UTF-8.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_TEMPLATE_CHARACTERS + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelFileError.about(
            path,
            "no chat template",
            value=str(error),
            bound="a file with a Jinja template in UTF-8",
            remedy="Check the path, or fetch the file again.",
        ) from error
