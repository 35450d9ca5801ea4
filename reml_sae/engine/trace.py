"""The record of an outer optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from reml_sae.errors import require

ANNEAL = "anneal"
"""Stage whose length the schedules of penalties set; budgets of iterations do not count it."""


@dataclass(frozen=True)
class TraceRow:
    """One outer iteration.

    Attributes
    ----------
    iteration : int
    stage : str
        "anneal", "fellner-schall", "trust-region" or "crease".
    criterion : float
        V in nats.
    parts : mapping
        Terms of V; they sum to it.
    gradient_norm : float
        Largest absolute dV/drho inside the box; NaN where the stage does not need it.
    rho, strengths : mapping by name
    weights : mapping by name
        Weight of every penalty at this iteration's place in its schedule.
    edf : float
    inner_iterations : int
    inner_status : str
    damping : float
    seconds : float
        Since the loop began.
    """

    iteration: int
    stage: str
    criterion: float
    parts: Mapping[str, float]
    gradient_norm: float
    rho: Mapping[str, float]
    strengths: Mapping[str, float]
    weights: Mapping[str, float]
    edf: float
    inner_iterations: int
    inner_status: str
    damping: float
    seconds: float


@dataclass
class REMLTrace:
    """One `TraceRow` for each outer iteration, in order."""

    rows: list[TraceRow] = field(default_factory=list)

    def __repr__(self) -> str:
        ends = (f": V = {self.rows[0].criterion:.4f} -> {self.rows[-1].criterion:.4f} nats"
                if self.rows else "")
        return f"<REMLTrace of {len(self)} outer iterations{ends}>"

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TraceRow]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> TraceRow:
        return self.rows[index]

    @property
    def n_counted(self) -> int:
        """Number of iterations that ``max_outer`` bounds: all but those of annealing."""
        return sum(row.stage != ANNEAL for row in self.rows)

    def append(self, row: TraceRow) -> None:
        """Add one iteration."""
        self.rows.append(row)

    def to_records(self) -> list[dict[str, Any]]:
        """Flat dictionaries, nested names joined by dots, ready for JSON or a data frame."""
        records = []
        for row in self.rows:
            record: dict[str, Any] = {}
            for key, value in asdict(row).items():
                if isinstance(value, dict):
                    record.update({f"{key}.{name}": item for name, item in value.items()})
                else:
                    record[key] = value
            records.append(record)
        return records

    def to_frame(self) -> Any:
        """Pandas data frame of `to_records`.

        Raises
        ------
        MissingDependencyError
            Where pandas is not installed.
        """
        return require("pandas", "frames", "REMLTrace.to_frame").DataFrame(self.to_records())

    def plot(self, axes: Any = None) -> Any:
        """Draw V above its last value, and the log strengths, against the iteration.

        Parameters
        ----------
        axes : pair of matplotlib Axes, optional
            By default those of a new figure of pyplot, which keeps it until it is closed.

        Returns
        -------
        matplotlib.figure.Figure
        """
        if axes is None:
            pyplot = require("matplotlib.pyplot", "plot", "REMLTrace.plot")
            _, axes = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
        left, right = axes
        steps = [row.iteration for row in self.rows]
        values = np.array([row.criterion for row in self.rows])
        left.plot(steps, values - values.min(initial=np.inf) + 1e-6, ".-")
        left.set(yscale="log", xlabel="outer iteration", ylabel="V above its minimum (nats)")
        for name in self.rows[-1].rho if self.rows else ():
            right.plot(steps, [row.rho[name] for row in self.rows], ".-", label=name)
        right.set(xlabel="outer iteration", ylabel="rho")
        if self.rows and len(self.rows[-1].rho) <= 12:
            right.legend(fontsize="x-small")
        return left.figure
