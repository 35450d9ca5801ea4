"""The record of an outer optimisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import MissingDependencyError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TraceRow:
    """One outer iteration.

    Attributes
    ----------
    iteration : int
    stage : str
        "anneal", "fellner-schall" or "bfgs".
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

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[TraceRow]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> TraceRow:
        return self.rows[index]

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
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError(
                "REMLTrace.to_frame needs pandas: pip install 'reml-sae[frames]'"
            ) from error
        return pd.DataFrame(self.to_records())

    def plot(self, axes: Any = None) -> Any:
        """Criterion and log strengths against the iteration; returns the matplotlib figure."""
        from reml_sae._plotting import plot_trace

        return plot_trace(self, axes)
