import pytest

from shardline_workers.text.pre_tokenizers import RECIPES


def pieces(name: str, text: str) -> list[str]:
    return [piece for piece, _ in RECIPES[name].pre_tokenizer().pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["I", "'", "LL", "Ġpay", "ĠĠ", "Ġ1234", "!?", "Ċ", "Ċ", "ok"]),
        ("smollm", ["I", "'", "LL", "Ġpay", "ĠĠĠ", "1", "2", "3", "4", "!?", "Ċ", "Ċ", "ok"]),
        ("llama-bpe", ["I", "'LL", "Ġpay", "ĠĠ", "Ġ", "123", "4", "!?ĊĊ", "ok"]),
        ("qwen2", ["I", "'LL", "Ġpay", "ĠĠ", "Ġ", "1", "2", "3", "4", "!?ĊĊ", "ok"]),
    ],
)
def test_a_text_is_cut_as_the_name_says(name: str, expected: list[str]) -> None:
    assert pieces(name, "I'LL pay   1234!?\n\nok") == expected


def test_every_recipe_ends_in_bytes() -> None:
    assert all(pieces(name, "é") == ["Ã©"] for name in RECIPES)
