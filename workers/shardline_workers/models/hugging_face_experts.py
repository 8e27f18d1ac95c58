"""Reads the shape of mixtures of experts from a Hugging Face config.json."""

from shardline_workers.files.model_facts import ModelFacts
from shardline_workers.kernels.operands import RoutingRule
from shardline_workers.models.experts_shape import ExpertsShape
from shardline_workers.models.family_spec import ExpertsStyle

_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")  # one number, by the age and family of the file


def hugging_face_experts(facts: ModelFacts, style: ExpertsStyle | None, *, num_layers: int) -> ExpertsShape | None:
    """The experts of a family that has some.

    Raises:
        ModelFileError: a number is missing.
        ValueError: numbers make no sense.
    """
    if style is None:
        return None
    renormalises = facts.flag("norm_topk_prob")
    count_key = next((key for key in _COUNTS if facts.values.get(key) is not None), _COUNTS[0])
    width_key = "moe_intermediate_size" if "moe_intermediate_size" in facts.values else "intermediate_size"
    width = _whole(facts, width_key)
    return ExpertsShape(
        layers=_layers(facts, num_layers),
        num_experts=_whole(facts, count_key),
        width=width,
        rule=RoutingRule(
            num_active=_whole(facts, "num_experts_per_tok"),
            scoring=style.scoring,
            renormalises=style.renormalises if renormalises is None else renormalises,
            scale=_or(facts.number("routed_scaling_factor"), 1.0),
            num_groups=facts.whole("n_group", least=1) or 1,
            num_active_groups=facts.whole("topk_group", least=1) or 1,
        ),
        shared_width=(facts.whole("n_shared_experts") or 0) * width,
        has_bias=style.has_bias,
    )


def _layers(facts: ModelFacts, num_layers: int) -> frozenset[int]:
    """Every so many-th layer, but for those that are named, and for so many first ones."""
    period = facts.whole("decoder_sparse_step", least=1) or 1
    dense = facts.wholes("mlp_only_layers")
    first = facts.whole("first_k_dense_replace") or 0
    return frozenset(
        number for number in range(first, num_layers) if (number + 1) % period == 0 and number not in dense
    )


def _or(number: float | None, default: float) -> float:
    return default if number is None else number


def _whole(facts: ModelFacts, key: str) -> int:
    value = facts.whole(key, least=1)
    if value is None:
        raise facts.refusal(key, value=None, bound="a whole number of at least 1")
    return value
