import pytest

from shardline_workers.weights.tensor_names import GGUF_LLAMA, HUGGING_FACE_LLAMA, NameTable


@pytest.mark.parametrize(
    ("table", "theirs", "ours"),
    [
        (HUGGING_FACE_LLAMA, "model.layers.12.self_attn.q_proj.weight", "layers.12.query"),
        (HUGGING_FACE_LLAMA, "model.embed_tokens.weight", "embedding"),
        (GGUF_LLAMA, "blk.0.ffn_down.weight", "layers.0.down"),
        (GGUF_LLAMA, "output.weight", "lm_head"),
    ],
)
def test_names_go_both_ways(table: NameTable, theirs: str, ours: str) -> None:
    assert table.ours(theirs) == ours
    assert table.theirs(ours) == theirs


def test_both_tables_name_the_same_tensors_of_a_layer() -> None:
    assert set(HUGGING_FACE_LLAMA.layer_rests.values()) == set(GGUF_LLAMA.layer_rests.values())


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.attn_q.bias",
        "blk.01.attn_q.weight",
        "blk.x.attn_q.weight",
        "xblk.0.attn_q.weight",
        "blk.0.attn_q.weight.1",
    ],
)
def test_a_name_that_is_not_in_the_table_is_none(name: str) -> None:
    assert GGUF_LLAMA.ours(name) is None


def test_only_stored_angles_are_ignored() -> None:
    assert HUGGING_FACE_LLAMA.is_ignored("model.layers.3.self_attn.rotary_emb.inv_freq")
    assert not HUGGING_FACE_LLAMA.is_ignored("model.layers.3.self_attn.q_proj.bias")
    assert not GGUF_LLAMA.is_ignored("anything")
