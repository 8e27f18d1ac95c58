"""What a repository of the hub holds at one commit."""

from dataclasses import dataclass

from shardline_workers.files.hub_choice import HubFile


@dataclass(frozen=True, slots=True, kw_only=True)
class HubListing:
    """All files of a commit."""

    commit: str  # 40 hexadecimal digits
    files: tuple[HubFile, ...]
    licence: str = ""  # as the model's card says it
