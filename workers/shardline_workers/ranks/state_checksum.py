"""What shows whether ranks still keep the same state between steps, though they get deltas only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChecksum:
    """Of what plans have left in one group's ranks. What follows from tokens (counts for penalties) is not in it."""

    block_tables: int
    slots: int | None  # parameters of the sequences; None on a rank that has nothing to do with choices

    def differs_from(self, other: "StateChecksum") -> bool:
        """Whether the two drifted apart, in what both of them have."""
        has_both = self.slots is not None and other.slots is not None
        return self.block_tables != other.block_tables or (has_both and self.slots != other.slots)

    def __str__(self) -> str:
        slots = "none" if self.slots is None else f"{self.slots:08x}"
        return f"block tables {self.block_tables:08x}, slots {slots}"
