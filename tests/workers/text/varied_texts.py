"""A few hundred texts that tokenizers stumble over."""

from collections.abc import Iterator
from itertools import product

_WORDS = ["hello", "Hello", "HELLO", "don't", "I'LL", "naïve", "Straße", "ﬁne", "e\u0301", "Ⅳ", "½", "x²", "_id", "a.b"]
_SCRIPTS = [
    "你好，世界",
    "日本語テキスト",
    "한국어",
    "Привет, мир",
    "שלום",
    "مرحبا بالعالم",
    "हिन्दी",
    "ไทย",
    "ελληνικά",
]
_EMOJI = ["🚀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "☃️", "🤷🏻‍♂️ ok"]
_NUMBERS = ["0", "42", "1234567", "3.14159", "1,000,000", "-7e-10", "0x1F", "2024-02-29", "١٢٣", "１２３"]
_CODE = [
    "def f(x):\n    return x**2  # square\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i];\n}\n",
    '{"key": [1, 2.5, null], "s": "a\\"b"}',
    "<div class='x'>&nbsp;</div>",
    "SELECT * FROM t WHERE a <> 'b' -- c\n",
    "https://example.org/a?b=c&d=%20#e",
    "\\frac{a}{b} $x_i^2$",
]
_SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t ", " \n ", "\u00a0", "\u3000", "\u200b"]
_OTHERS = ["", "\x00", "\x7f", "\ufffd", "\U0010ffff", "a" * 300, "ab" * 100, "!?" * 20, "…—“”", "<|im_start|>user\nhi"]


def varied_texts() -> Iterator[str]:
    """Words, scripts, numbers, code, and every kind of space before, between and behind them."""
    plain = [*_WORDS, *_SCRIPTS, *_EMOJI, *_NUMBERS, *_CODE, *_OTHERS]
    yield from plain
    for space, word in product(_SPACES, [*_WORDS[:5], *_SCRIPTS[:3], *_EMOJI[:3], *_NUMBERS[:4], "."]):
        yield f"{space}{word}"
        yield f"{word}{space}{word}"
        yield f"{word}{space}"
    yield from (f"{left}{right}" for left, right in product(_WORDS[:6] + _NUMBERS[:3], _EMOJI[:2] + _SCRIPTS[:2]))
    yield " ".join(plain)
