"""How a user names a model of the Hugging Face hub: `hf:org/name[@revision][:file]`.

hf:org/name                       the newest commit of the branch main
hf:org/name@v1.0                  a branch, a tag or a commit
hf:org/name:model-Q4_K_M.gguf     one of the repository's GGUF files
hf:org/name:Q4_K_M                the same by its type
"""

import re
from dataclasses import dataclass, replace

from shardline_workers.files.model_file_error import ModelFileError

HUB_PREFIX = "hf:"
DEFAULT_REVISION = "main"
_REPOSITORY = r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?"
_SOURCE = re.compile(rf"(?P<repository>{_REPOSITORY})(?:@(?P<revision>[\w./+-]+))?(?::(?P<selection>\w[\w./+ -]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """What stands behind `hf:`."""

    repository: str  # org/name; a few old ones have no org
    revision: str = DEFAULT_REVISION
    selection: str = ""  # a file, or a quantisation's name; empty: the only model there is

    def __str__(self) -> str:
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{HUB_PREFIX}{self.repository}{revision}{f':{self.selection}' if self.selection else ''}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which can never mean anything else."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def short_name(self) -> str:
        """The name without its owner."""
        return self.repository.rpartition("/")[2]

    def pinned(self, commit: str, *, selection: str) -> "HubSource":
        """The same model by commit and file, so that every host that reads this takes the same bytes."""
        return replace(self, revision=commit, selection=selection)


def parse_hub_source(text: str) -> HubSource:
    """Reads `hf:org/name[@revision][:file]`.

    Raises:
        ModelFileError: it is not of that form.
    """
    match = _SOURCE.fullmatch(text.removeprefix(HUB_PREFIX))
    if match is None or ".." in text or text.endswith("/"):
        raise ModelFileError.about(
            text,
            "no model of the Hugging Face hub",
            value=text,
            bound="hf:org/name, hf:org/name@revision or hf:org/name:FILE.gguf",
            remedy="Copy the name from the model's page, for instance hf:HuggingFaceTB/SmolLM2-135M-Instruct.",
        )
    return HubSource(
        repository=match["repository"],
        revision=match["revision"] or DEFAULT_REVISION,
        selection=match["selection"] or "",
    )
