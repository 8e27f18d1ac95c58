"""DeepSeek's configurations: what is read of them, and what is refused by its name."""

import math
from pathlib import Path

import pytest
import torch

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.files.model_file_error import ModelFileError
from shardline_workers.files.safetensors_folder import SafetensorsFolder
from shardline_workers.kernels.native_kernels import unsupported
from shardline_workers.kernels.operands import RotaryPairing, RoutingRule, Scoring
from shardline_workers.models.decoder_shape import DecoderShape
from shardline_workers.models.hugging_face_config import HuggingFaceConfig
from shardline_workers.models.rotary_scaling import YarnScaling
from shardline_workers.sizing import published_shapes
from shardline_workers.weights.tensor_names import HUGGING_FACE_DEEPSEEK
from shardline_workers.weights.tensor_source import SafetensorsTensorSource
from shardline_workers.weights.weight_loader import WeightLoader
from tests.workers.tiny_deepseek import KV_RANK, NOPE_DIM, ROPE_DIM, tiny_deepseek_config, write_tiny_deepseek

PUBLISHED = Path(published_shapes.__file__).parent / "published_configs" / "deepseek-v3.json"
# As DeepSeek-V3's own file has it.
YARN = {
    "type": "yarn",
    "factor": 40,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}


def read(**changes: object) -> DecoderShape:
    values = {key: value for key, value in (tiny_deepseek_config() | changes).items() if value != "absent"}
    config = HuggingFaceConfig(ModelFacts(Path("m/config.json"), values))
    return config.decoder_shape(config.family())


def test_the_published_model_has_as_many_parameters_as_everybody_counts() -> None:
    config = HuggingFaceConfig(ModelFacts.read_json(PUBLISHED))

    shape = config.decoder_shape(config.family())

    assert sum(math.prod(size) for size in shape.tensor_shapes().values()) == 671_026_419_200
    assert unsupported(shape.attention) is None, "native kernels compute its heads"


def test_a_token_leaves_one_key_which_is_its_value() -> None:
    heads = read().attention

    assert (heads.num_heads, heads.num_kv_heads, heads.head_dim, heads.shares_values) == (
        5,
        1,
        ROPE_DIM + KV_RANK,
        True,
    )


def test_how_experts_are_chosen_is_read() -> None:
    experts = read(routed_scaling_factor=1.5, norm_topk_prob=False, n_shared_experts=2).experts

    assert experts is not None
    assert experts.rule == RoutingRule(
        num_active=3, scoring=Scoring.SIGMOID, renormalises=False, scale=1.5, num_groups=4, num_active_groups=2
    )
    assert (experts.layers, experts.shared_width, experts.has_bias) == (frozenset({1}), 2 * 64, True)


def test_stretched_positions_sharpen_the_scores_in_all_dimensions() -> None:
    plain, stretched = read(), read(rope_scaling=YARN)

    magnitude = 0.1 * math.log(40) + 1
    assert plain.score_divisor == NOPE_DIM + ROPE_DIM
    assert stretched.score_divisor == pytest.approx((NOPE_DIM + ROPE_DIM) / magnitude**4)
    assert isinstance(stretched.rotary.scaling, YarnScaling)
    assert stretched.rotary.scaling.magnitude == 1.0, "as much for positions as for all: queries and keys share it"


@pytest.mark.parametrize("magnitude", [0.0, -1.0, math.inf, math.nan])
def test_a_magnitude_that_makes_no_sense_is_refused(magnitude: float) -> None:
    latent = read().latent
    assert latent is not None

    with pytest.raises(ValueError, match="magnitude of stretched queries and keys is"):
        latent.score_divisor(magnitude)


@pytest.mark.parametrize(("kv_rank", "size"), [(1024, 1040), (70, 86)])
def test_heads_that_native_kernels_do_not_compute_are_told(kv_rank: int, size: int) -> None:
    reason = unsupported(read(kv_lora_rank=kv_rank).attention)

    assert reason == f"heads of {size} dimensions; native kernels take multiples of 16 up to 576"


@pytest.mark.parametrize(
    ("told", "pairing"),
    [("absent", RotaryPairing.NEIGHBOURS), (True, RotaryPairing.NEIGHBOURS), (False, RotaryPairing.HALVES)],
)
def test_neighbours_turn_together_unless_it_says_otherwise(told: object, pairing: RotaryPairing) -> None:
    assert read(rope_interleave=told).rotary.pairing is pairing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_method": "group_limited_greedy"}, "topk_method: found 'group_limited_greedy', expected noaux_tc"),
        ({"scoring_func": "softmax"}, "scoring_func: found 'softmax', expected sigmoid"),
        ({"moe_layer_freq": 2}, "moe_layer_freq: found 2, expected 1"),
        ({"attention_bias": True}, "attention_bias: found True, expected False"),
        ({"kv_lora_rank": "absent"}, "kv_lora_rank: found None"),
        ({"qk_rope_head_dim": 15}, "rotary_dim is 15; it must be even"),
        ({"v_head_dim": 0}, "v_head_dim is 0; it must be at least 1"),
        ({"n_routed_experts": 9}, "9 experts do not make 4 groups"),
        ({"architectures": ["DeepseekV2ForCausalLM"]}, "n_group: found 4, expected 1"),
        (
            {"architectures": ["DeepseekV2ForCausalLM"], "n_group": 1, "norm_topk_prob": True},
            "norm_topk_prob: found True",
        ),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, r"\(FP8\)"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_refused_by_its_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        read(**changes)


def test_layers_that_guess_further_tokens_are_left_unread(tmp_path: Path) -> None:
    files = write_tiny_deepseek(tmp_path)
    last = read(num_hidden_layers=1, num_nextn_predict_layers=1)
    folder = SafetensorsFolder.open(files.path)
    source = SafetensorsTensorSource(files.path, folder)
    loader = WeightLoader(source, HUGGING_FACE_DEEPSEEK, dtype=torch.float32, device=torch.device("cpu"))

    loader.check(last.tensor_shapes(), unread_layers=range(1, 1 + last.num_draft_layers))

    with pytest.raises(ModelFileError, match=r"tensors would not be used: found \['model\.layers\.1\."):
        loader.check(last.tensor_shapes())
    folder.close()
