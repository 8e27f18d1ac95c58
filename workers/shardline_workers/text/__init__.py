"""Between text and token ids: tokenizer, chat template, detokenizer, stop strings. No torch: routers use it too."""
