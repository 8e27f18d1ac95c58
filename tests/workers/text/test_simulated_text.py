from shardline_workers.text.simulated_text import simulated_text_model


def test_a_chat_is_rendered_in_turns_and_ends_where_the_assistant_speaks() -> None:
    model = simulated_text_model(128)
    assert model.chat_template is not None

    prompt = model.chat_template.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)

    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_it_has_the_asked_context_and_ends_at_its_own_specials() -> None:
    model = simulated_text_model(128)

    assert model.max_model_len == 128
    assert model.eos_ids == {256, 258}
    assert model.eos_ids < model.tokenizer.special_ids
    assert len(model.weights_digest) == 16
