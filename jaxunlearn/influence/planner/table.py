"""A plan: what each stage of a run needs, as values and as a table."""

import dataclasses
from typing import Any, NamedTuple


class PlannedStage(NamedTuple):
    """One program of a run, at the batch size that fits.

    Attributes:
      name: The stage.
      batch_size: Examples or queries at a time; None if it is not batched.
      calls: How often the program runs for one part of the queries and layers.
      argument_bytes: Parameters, batch, and what earlier stages made.
      output_bytes: What it makes, without what takes the place of an argument.
      temporary_bytes: What it needs meanwhile.
      held_bytes: What else is in memory then.
      flops: Of its matrix products, for one call; of a solver, for one step.
    """

    name: str
    batch_size: int | None
    calls: int
    argument_bytes: int
    output_bytes: int
    temporary_bytes: int
    held_bytes: int
    flops: float

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return (
            self.argument_bytes
            + self.output_bytes
            + self.temporary_bytes
            + self.held_bytes
        )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run needs, and in which parts it fits.

    Attributes:
      method: The method.
      limit_bytes: The limit.
      stages: In the order of the run, each at the largest batch size that fits.
      batch_size: The largest that fits in every stage: for ``scores(batch_size=...)``.
      queries_at_a_time: How many queries to give to ``scores`` at a time.
      query_parts: In how many parts the queries then come.
      layer_parts: Expressions for ``layers``, one a part; scores of parts add up.
    """

    method: str
    limit_bytes: int
    stages: tuple[PlannedStage, ...]
    batch_size: int
    queries_at_a_time: int
    query_parts: int
    layer_parts: tuple[str | None, ...]

    @property
    def peak_bytes(self) -> int:
        """The most that any stage needs."""
        return max(stage.total_bytes for stage in self.stages)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table, one row a stage, memory in MB."""
        return [
            {
                "stage": stage.name,
                "batch size": stage.batch_size,
                "calls": stage.calls,
                "arguments MB": stage.argument_bytes / 1e6,
                "outputs MB": stage.output_bytes / 1e6,
                "temporary MB": stage.temporary_bytes / 1e6,
                "held MB": stage.held_bytes / 1e6,
                "total MB": stage.total_bytes / 1e6,
                "GFLOP a call": stage.flops / 1e9,
            }
            for stage in self.stages
        ]

    def __str__(self) -> str:
        """Return the table as text, and what to pass to the run."""
        table = self.rows()
        cells = [list(table[0])] + [[told(x) for x in row.values()] for row in table]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        parts = [part for part in self.layer_parts if part is not None]
        return "\n".join(
            [
                f"{self.method}: {self.peak_bytes / 1e6:.4g} MB at most, of "
                f"{self.limit_bytes / 1e6:.4g} MB",
                *lines,
                f"batch_size={self.batch_size}; queries in {self.query_parts} part(s) "
                f"of {self.queries_at_a_time}; layers in {len(self.layer_parts)} "
                f"part(s){':' if len(self.layer_parts) > 1 else ''}",
                *(f"  layers={part!r}" for part in parts if len(parts) > 1),
            ]
        )


def told(value: Any) -> str:
    """Return a cell of the table."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
