"""The shape that a deployment asks for its replicas: sizes as options have them, and as planning wants them. Pure."""

from shardline_cluster.errors import ConfigurationError
from shardline_cluster.fleet.deployment import EngineOptions
from shardline_cluster.planning.plan_search import AskedPlan
from shardline_cluster.planning.shape_limits import nearest_shape, shape_refusal
from shardline_workers.parallel.parallel_plan import ParallelPlan
from shardline_workers.sizing.model_shape import ModelShape

GPU_RESOURCE = "GPU"  # as Ray calls it


def asked_plan(options: EngineOptions) -> AskedPlan:
    """The sizes of one replica; None where it is to be worked out."""
    shares_experts = options.enable_expert_parallel
    return AskedPlan(
        tp=options.tensor_parallel_size,
        pp=options.pipeline_parallel_size,
        ep=None if shares_experts else options.expert_parallel_size,
        dp=options.data_parallel_size,
        shares_experts=shares_experts,
    )


def fixed_plan(options: EngineOptions) -> ParallelPlan | None:
    """The plan that was asked for; None where a size is to be worked out.

    Raises:
        ValueError: the sizes contradict each other.
    """
    tp, pp, dp = options.tensor_parallel_size, options.pipeline_parallel_size, options.data_parallel_size
    ep = tp * dp if options.enable_expert_parallel and tp and dp else options.expert_parallel_size
    if tp is None or pp is None or dp is None or ep is None:
        return None
    return ParallelPlan(tp=tp, pp=pp, ep=ep, dp=dp)


def rank_resource(options: EngineOptions) -> str:
    """Of what each rank takes one; empty: ranks share a host's cores, and are as many as was asked for."""
    if options.rank_resource is not None:
        return options.rank_resource
    return GPU_RESOURCE if options.device.startswith("cuda") else ""


def is_one_rank(options: EngineOptions) -> bool:
    """Whether nothing but one rank was asked for."""
    plan = fixed_plan(options)
    return plan is not None and plan.num_ranks == 1


def refuse_impossible_shape(options: EngineOptions, shape: ModelShape) -> None:
    """Refuses sizes that the model cannot be dealt to, whatever GPUs there are. Sizes that are auto count as 1.

    Raises:
        ConfigurationError: the text says why, and which shape is the nearest.
    """
    plan = fixed_plan(options) or least_plan(options)
    reason = shape_refusal(shape, plan, concurrency=options.max_num_seqs)
    if reason is not None:
        nearest = nearest_shape(shape, plan, concurrency=options.max_num_seqs)
        raise ConfigurationError(f"{reason}; the nearest shape that this model can have is {nearest}")


def least_plan(options: EngineOptions) -> ParallelPlan:
    """With 1 for every size that is auto. How experts are dealt is open then, too."""
    return ParallelPlan(
        tp=options.tensor_parallel_size or 1,
        pp=options.pipeline_parallel_size or 1,
        dp=options.data_parallel_size or 1,
    )
