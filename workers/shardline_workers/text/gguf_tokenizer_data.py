"""What a GGUF file's metadata say about its tokenizer, checked before anything is built of it."""

from dataclasses import dataclass

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.text.pre_tokenizers import RECIPES, PreTokenizerRecipe
from shardline_workers.text.sentencepiece_vocabulary import PieceType, SentencePieceVocabulary

BYTE_LEVEL = "gpt2"  # as GGUF calls byte-level BPE
SENTENCEPIECE = "llama"  # and SentencePiece's BPE


@dataclass(frozen=True, slots=True)
class GgufTokenizerData:
    """The keys below `tokenizer.ggml`: types, lengths, and ids within the vocabulary. All raise ModelFileError."""

    facts: ModelFacts

    def tokens(self) -> tuple[str, ...]:
        """The vocabulary; a token's id is its place."""
        return self._texts("tokenizer.ggml.tokens")

    def merges(self) -> tuple[str, ...]:
        """Pairs of entries, a space between, the first merged first."""
        return self._texts("tokenizer.ggml.merges")

    def token_types(self) -> tuple[int, ...]:
        """One type a token; all normal where the file says nothing."""
        num_tokens = len(self.tokens())
        value = self.facts.values.get("tokenizer.ggml.token_type", (PieceType.NORMAL,) * num_tokens)
        if not isinstance(value, tuple) or len(value) != num_tokens or not isinstance(value[0], int):
            raise self.facts.refusal("tokenizer.ggml.token_type", value=value, bound=f"{num_tokens} numbers")
        return value

    def token(self, role: str) -> str | None:
        """The entry of `bos`, `eos`, `padding`, `unknown` …, or None where the model has none."""
        token_id = self.token_id(role)
        return None if token_id is None else self.tokens()[token_id]

    def token_id(self, role: str) -> int | None:
        """Its id. One outside the vocabulary is refused."""
        key = f"tokenizer.ggml.{role}_token_id"
        token_id = self.facts.whole(key)
        num_tokens = len(self.tokens())
        if token_id is not None and token_id >= num_tokens:
            raise self.facts.refusal(key, value=token_id, bound=f"a number from 0 to {num_tokens - 1}")
        return token_id

    def model(self) -> str:
        """The kind of tokenizer: BYTE_LEVEL or SENTENCEPIECE."""
        model = self.facts.text("tokenizer.ggml.model")
        if model not in (BYTE_LEVEL, SENTENCEPIECE):
            bound = f"{BYTE_LEVEL} (byte-level BPE) or {SENTENCEPIECE} (SentencePiece BPE)"
            raise self.facts.refusal("tokenizer.ggml.model", value=model, bound=bound)
        return model

    def recipe(self) -> PreTokenizerRecipe:
        """How texts are cut before byte-level BPE, by the pre-tokenizer's name."""
        name = self.facts.text("tokenizer.ggml.pre")
        recipe = RECIPES.get(name or "")
        if recipe is None:
            raise self.facts.refusal("tokenizer.ggml.pre", value=name, bound=f"one of {', '.join(RECIPES)}")
        return recipe

    def adds_bos(self) -> bool:
        """Whether a text begins with BOS, by the file or else by the pre-tokenizer's custom."""
        told = self.facts.flag("tokenizer.ggml.add_bos_token")
        if told is not None:
            return told
        return self.model() == SENTENCEPIECE or self.recipe().adds_bos

    def sentencepiece(self) -> SentencePieceVocabulary:
        """The vocabulary of a SentencePiece tokenizer."""
        if self.facts.flag("tokenizer.ggml.remove_extra_whitespaces"):
            key = "tokenizer.ggml.remove_extra_whitespaces"
            raise self.facts.refusal(key, value=True, bound="false: spaces stay as they are")
        told = self.facts.flag("tokenizer.ggml.add_space_prefix")
        return SentencePieceVocabulary(
            pieces=self.tokens(),
            scores=self._scores(),
            types=self.token_types(),
            adds_space_prefix=True if told is None else told,
        )

    def _scores(self) -> tuple[float, ...]:
        key, num_tokens = "tokenizer.ggml.scores", len(self.tokens())
        value = self.facts.values.get(key)
        if not isinstance(value, tuple) or len(value) != num_tokens or not isinstance(value[0], float):
            raise self.facts.refusal(key, value=value, bound=f"{num_tokens} numbers")
        return value

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self.facts.values.get(key)
        if not isinstance(value, tuple) or not value or not isinstance(value[0], str):
            raise self.facts.refusal(key, value=value, bound="an array of strings")
        return value
