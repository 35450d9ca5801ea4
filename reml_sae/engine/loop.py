"""What the stages of the REML loop share: the best point so far, the trace, the clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from reml_sae.engine.criterion import ADJOINT_RTOL, CriterionValue, criterion
from reml_sae.engine.deadline import Deadline
from reml_sae.engine.inner import InnerSolution
from reml_sae.engine.protocol import ArrowModel, ModelPoint
from reml_sae.engine.trace import ANNEAL, REMLTrace, TraceRow
from reml_sae.typing import Array, Curvature

Callback = Callable[[TraceRow], object]
logger = logging.getLogger("reml_sae")

LARGEST_SIZE = 5000.0
"""Entries of the data with which the tolerance of the gradient grows: V may be flat in a strength
however many there are."""


NEAR = 1.0
"""Distance of log strengths at which a factor of H still stands in for another."""


class Loop:
    """State that the stages share: the best point so far, the trace, the budgets, the clock."""

    def __init__(self, model: ArrowModel, curvature: Curvature, tol: float, inner_tol: float,
                 callbacks: Sequence[Callback], trace: REMLTrace, max_outer: int,
                 deadline: Deadline, max_inner: int = 100):
        self.model, self.curvature, self.tol, self.inner_tol = model, curvature, tol, inner_tol
        self.callbacks, self.trace = callbacks, trace
        self.left, self.deadline, self.max_inner = max_outer, deadline, max_inner
        self.outer = model.outer
        # V is of the order of the number of entries, up to a constant that the units set
        self.size = 1.0 + float(np.prod(model.shape))
        self.start = time.perf_counter()
        self.best: CriterionValue | None = None
        self.best_rho = self.outer.clip(model.initial_rho())
        self.theta = model.initial_theta()

    @property
    def found(self) -> CriterionValue:
        """V at the best point."""
        assert self.best is not None
        return self.best

    @property
    def is_exact(self) -> bool:
        """Whether the best point has been solved for as accurately as any, with its gradient."""
        return (self.best is not None and self.best.adjoint is not None
                and self.best.inner.converged and self.best.inner.decrement <= self.inner_tol)

    def evaluate(self, rho: Array, gradient: bool, tol: float | None = None,
                 lenient: bool = False, max_inner: int | None = None,
                 adjoint_rtol: float = ADJOINT_RTOL) -> CriterionValue:
        """V at rho; raises `Stopped` once there is a state to keep and no time is left."""
        may_stop = self.best is not None or self.deadline.sharp
        return criterion(self.model, rho, theta=self.theta, curvature=self.curvature,
                         gradient=gradient, lenient=lenient, adjoint_rtol=adjoint_rtol,
                         tol=self.inner_tol if tol is None else tol,
                         max_inner=self.max_inner if max_inner is None else max_inner,
                         near=self._near(rho),
                         check=self.deadline.check if may_stop else lambda: None)

    def _near(self, rho: Array) -> InnerSolution[ModelPoint] | None:
        """The best point, where its curvature is nearly that at rho."""
        near = self.best is not None and np.abs(rho - self.best_rho).max(initial=0.0) <= NEAR
        return self.found.inner if near else None

    def keep(self, rho: Array, value: CriterionValue) -> None:
        """Take a state as the best so far, from which the next solve starts."""
        self.best, self.best_rho, self.theta = value, rho.copy(), value.inner.theta

    def projected(self, rho: Array, gradient: Array) -> Array:
        """The gradient without what points out of the box."""
        low, high = self.outer.bounds.T
        blocked = ((rho <= low) & (gradient > 0)) | ((rho >= high) & (gradient < 0))
        return np.where(blocked, 0.0, gradient)

    def improves(self, rho: Array, value: CriterionValue, rounding: float) -> bool:
        """Whether V is lower than the best, or the same to its rounding and flatter."""
        assert self.best is not None
        slack = rounding * self.size
        if abs(value.value - self.best.value) > slack:
            return value.value < self.best.value
        return self.slope(rho, value) < self.slope(self.best_rho, self.best)

    def slope(self, rho: Array, value: CriterionValue) -> float:
        """Largest absolute dV/drho inside the box."""
        return float(np.abs(self.projected(rho, value.gradient)).max(initial=0.0))

    def stationary(self, rho: Array, value: CriterionValue) -> bool:
        """Whether the gradient of V is below the tolerance, at a mode that was reached."""
        small = self.slope(rho, value) <= self.tol * min(self.size, LARGEST_SIZE)
        return small and value.inner.converged

    def record(self, stage: str, rho: Array, value: CriterionValue) -> None:
        """Add a row to the trace, log it and show it to the callbacks."""
        self.left -= stage != ANNEAL
        row = TraceRow(
            iteration=len(self.trace), stage=stage, criterion=value.value, parts=value.parts,
            gradient_norm=float(np.abs(self.projected(rho, value.gradient)).max(initial=0.0)),
            rho=self.outer.named(rho),
            strengths=self.model.strengths(rho), weights=self.model.weights(),
            edf=value.edf, inner_iterations=value.inner.n_iter,
            inner_status=value.inner.status.name.lower(), damping=value.inner.damping,
            seconds=time.perf_counter() - self.start,
        )
        self.trace.append(row)
        logger.info("outer %d %s: V = %.6f, |gradient| = %.3g, inner %d (%s)", row.iteration,
                    stage, row.criterion, row.gradient_norm, row.inner_iterations,
                    row.inner_status)
        for callback in self.callbacks:
            callback(row)
