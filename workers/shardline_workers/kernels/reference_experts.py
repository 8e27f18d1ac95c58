"""Which experts tokens take, in plain torch."""

import torch
from torch import Tensor

from shardline_workers.kernels.operands import RoutingRule, Scoring

_SCORED_BY = 2  # choices of a group whose sum is its own


def choose(x: Tensor, router: Tensor, *, bias: Tensor | None, rule: RoutingRule) -> tuple[Tensor, Tensor]:
    """Experts and their weights of rows x [num_rows, hidden], as `Operations.route` says.

    Returns:
        Ids [num_rows, num_active] int64 and weights [num_rows, num_active], float32 at least.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    logits = torch.mm(x.to(dtype), router.t().to(dtype))
    scores = logits.softmax(-1) if rule.scoring is Scoring.SOFTMAX else logits.sigmoid()
    choices = scores if bias is None else scores + bias
    if rule.num_groups > 1:
        choices = _within_groups(choices, rule)
    expert_ids = _greatest(choices, rule.num_active)
    weights = scores.gather(-1, expert_ids)
    if rule.renormalises:
        weights = weights / weights.sum(-1, keepdim=True)
    return expert_ids, weights * rule.scale


def _within_groups(choices: Tensor, rule: RoutingRule) -> Tensor:
    """Choices [num_rows, num_experts], -inf in all but the best groups."""
    groups = choices.view(len(choices), rule.num_groups, -1)
    sums = groups.topk(_SCORED_BY, dim=-1).values.sum(-1)
    is_open = torch.zeros_like(sums, dtype=torch.bool)
    is_open.scatter_(-1, _greatest(sums, rule.num_active_groups), value=True)
    return groups.where(is_open[..., None], -torch.inf).flatten(-2)


def _greatest(values: Tensor, count: int) -> Tensor:
    """Indices of the greatest in the last dimension, in falling order; of equal ones the lower index comes first."""
    order: Tensor = values.sort(dim=-1, descending=True, stable=True).indices
    return order[..., :count]
