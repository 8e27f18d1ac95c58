"""Makes the files of this folder with SentencePiece itself, which the tests do without:

    pip install sentencepiece && PYTHONPATH=. python tests/workers/text/sentencepiece/make.py

llama.model, gemma.model    small tokenizers with the settings of Llama 2 and of Gemma, trained on the test's own texts
llama.json, gemma.json      what SentencePiece makes of hard texts: a list of [text, ids]
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece  # type: ignore[import-not-found]

from tests.workers.text.varied_texts import varied_texts

HERE = Path(__file__).parent
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"add_dummy_prefix": True},
    "gemma": {
        "add_dummy_prefix": False,
        "user_defined_symbols": ["▁▁", "▁▁▁", "▁▁▁▁", "<b>", "</b>", "\n", "\n\n", "\t"],
    },
}


def make(name: str, settings: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.txt")
        corpus.write_text("\n".join(text.replace("\n", " ").replace("\0", "") for text in varied_texts()))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(HERE / name),
            model_type="bpe",
            vocab_size=700,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            character_coverage=0.98,
            max_sentence_length=100_000,
            **settings,
        )
    (HERE / f"{name}.vocab").unlink()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(HERE / f"{name}.model"))
    told = [[text, processor.encode(text)] for text in hard_texts()]
    (HERE / f"{name}.json").write_text(json.dumps(told, separators=(",", ":")) + "\n")


def hard_texts() -> list[str]:
    """Every fourth of the varied texts, and what SentencePiece's rules turn on."""
    own = [
        "  a",
        "a  ",
        " ",
        "   ",
        "      x",
        "a     b",
        "<b>bold</b> and <b>",
        "\n\n\n",
        "\t\n x",
        "▁",
        "a▁b",
        "<0x41>",
    ]
    return [*list(varied_texts())[::4], *own]


if __name__ == "__main__":
    for name, settings in SETTINGS.items():
        make(name, settings)
