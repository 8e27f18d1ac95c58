"""A tokenizer of the `tokenizers` library, from a tokenizer.json or built from other data (see gguf_tokenizer)."""

import json
from pathlib import Path

import tokenizers

from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.text.token_spelling import spelling_of

_TRIAL_TEXT = "A trial: 1 + 1 = 2"


class HfTokenizer:
    """Implements `Tokenizer`. Special tokens in a text are parsed as such, as `transformers` does.

    With `add_special_tokens` the text begins with what the tokenizer's own post-processor puts there, and with
    `bos_token` where `adds_bos` says so; a BOS that the text brings itself is not doubled.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, *, bos_token: str | None, adds_bos: bool = False, path: Path
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        decoder = None if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__())
        spelling = spelling_of(decoder)
        if spelling is None:
            raise ModelFileError.about(
                path,
                "the tokenizer's decoder is not supported",
                value=decoder,
                bound="ByteLevel, ByteFallback or Metaspace",
                remedy="Take a model that generates text with byte-level BPE or SentencePiece.",
            )
        self._tokenizer = tokenizer
        self._spelling = spelling
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token_id: token.content.encode() for token_id, token in added.items()}
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        self._bos_id = None if bos_token is None else tokenizer.token_to_id(bos_token)
        self._adds_bos = adds_bos

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return self._vocab_size

    @property
    def special_ids(self) -> frozenset[int]:
        """The added tokens that are marked special."""
        return self._special_ids

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids. A lone surrogate, which is no text, becomes a question mark."""
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:  # how the library says that a string is no UTF-8
            return self.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=add_special_tokens)
        return self._with_one_bos(ids) if add_special_tokens and self._bos_id is not None else ids

    def _with_one_bos(self, ids: list[int]) -> list[int]:
        if ids[:2] == [self._bos_id] * 2:
            return ids[1:]
        if self._adds_bos and self._bos_id is not None and ids[:1] != [self._bos_id]:
            return [self._bos_id, *ids]
        return ids

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        """The bytes of one token; none for ids that have no entry (an embedding may have more rows)."""
        if skip_special and token_id in self._special_ids:
            return b""
        added = self._added.get(token_id)
        if added is not None:
            return added
        if not 0 <= token_id < self._vocab_size:
            return b""
        entry = self._tokenizer.id_to_token(token_id)
        return b"" if entry is None else self._spelling(entry)

    def token_id(self, entry: str) -> int | None:
        """The id of an entry as the vocabulary spells it, a special token's text for instance."""
        return self._tokenizer.token_to_id(entry)


def load_hf_tokenizer(path: Path, *, bos_token: str | None) -> HfTokenizer:
    """Reads a tokenizer.json.

    Raises:
        ModelFileError: it is missing or broken, or of a kind that cannot be streamed.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        # A post-processor may name tokens that are not there, which is found out when it is used. Better now.
        trial_ids = tokenizer.encode(_TRIAL_TEXT, add_special_tokens=True).ids
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # nothing narrower: a panic of the library's Rust code is not even an Exception
        raise ModelFileError.about(
            path, "not a tokenizer", value=str(error), bound="a tokenizer.json", remedy="Fetch the file again."
        ) from error
    read = HfTokenizer(tokenizer, bos_token=bos_token, path=path)
    if max(trial_ids, default=0) >= read.vocab_size:
        raise ModelFileError.about(
            path,
            "the post-processor writes an id that is in no vocabulary",
            value=max(trial_ids),
            bound=f"ids below {read.vocab_size}",
            remedy="Fetch the file again.",
        )
    return read
