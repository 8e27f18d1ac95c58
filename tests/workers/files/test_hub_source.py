import pytest

from shardline_workers.files.hub_source import HubSource, parse_hub_source
from shardline_workers.files.model_file_error import ModelFileError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/name", HubSource(repository="org/name")),
        ("hf:gpt2", HubSource(repository="gpt2")),
        ("hf:org/name@refs/pr/7", HubSource(repository="org/name", revision="refs/pr/7")),
        ("hf:org/a.b-c_d@v1.0:Q4_K_M", HubSource(repository="org/a.b-c_d", revision="v1.0", selection="Q4_K_M")),
        ("hf:org/name:Q8_0/m.gguf", HubSource(repository="org/name", selection="Q8_0/m.gguf")),
    ],
)
def test_a_source_is_read_and_written_the_same(text: str, expected: HubSource) -> None:
    source = parse_hub_source(text)

    assert source == expected
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:/", "hf:org/", "hf:a/b/c", "hf:org/name@", "hf:org/../x", "hf:org/n:../x.gguf", "hf:https://x/y"],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"expected hf:org/name.*HuggingFaceTB/SmolLM2"):
        parse_hub_source(text)


def test_only_a_whole_commit_is_pinned() -> None:
    assert parse_hub_source(f"hf:org/name@{COMMIT}").is_pinned
    assert not parse_hub_source(f"hf:org/name@{COMMIT[:7]}").is_pinned
    assert not parse_hub_source("hf:org/name").is_pinned
