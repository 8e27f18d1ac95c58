"""The numbers that make the mixtures of experts of a model."""

from dataclasses import dataclass

from shardline_workers.kernels.operands import RoutingRule

MAX_EXPERTS = 4096  # of a layer; keeps a hostile number from filling the memory with the names of their tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsShape:
    """Layers whose MLP is a mixture of experts; all of them have as many. Checked at birth.

    Raises:
        ValueError: numbers that make no sense.
    """

    layers: frozenset[int]  # the others have a dense MLP
    num_experts: int  # of one layer
    width: int  # of one expert
    rule: RoutingRule
    shared_width: int = 0  # of an MLP beside them that every token takes; 0: there is none
    has_bias: bool = False  # the router has one, for choices alone

    def __post_init__(self) -> None:
        for name, size in (("num_experts", self.num_experts), ("width", self.width)):
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        if self.num_experts > MAX_EXPERTS:
            raise ValueError(f"num_experts is {self.num_experts}; it must be at most {MAX_EXPERTS}")
        if self.shared_width < 0:
            raise ValueError(f"shared_width is {self.shared_width}; it must be at least 0")
        self.rule.check(self.num_experts)

    def tensor_shapes(self, hidden_size: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of such a layer in its MLP's place, by the names of weights/tensor_names."""
        shapes: dict[str, tuple[int, ...]] = {"router": (self.num_experts, hidden_size)}
        if self.has_bias:
            shapes["router_bias"] = (self.num_experts,)
        for number in range(self.num_experts):
            shapes |= gated_shapes(f"experts.{number}.", hidden_size=hidden_size, width=self.width)
        if self.shared_width:
            shapes |= gated_shapes("shared_", hidden_size=hidden_size, width=self.shared_width)
        return shapes


def gated_shapes(prefix: str, *, hidden_size: int, width: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the matrices of an MLP with a gate, by name."""
    return {
        f"{prefix}gate": (width, hidden_size),
        f"{prefix}up": (width, hidden_size),
        f"{prefix}down": (hidden_size, width),
    }
