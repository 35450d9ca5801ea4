"""The REML loop: minimise V over rho (DESIGN A5).

Its stages are shown in the trace: schedules move the weights to their terminal values
("anneal"); generalized Fellner-Schall steps (Wood and Fasiolo 2017) set every strength to the value
at which the explicit part of the gradient vanishes ("fellner-schall"); a trust-region quasi-Newton
search with the exact adjoint gradient finishes on the fixed final objective ("trust-region"), and
where that stalls, V may be least where two smooth pieces of it meet ("crease"). Convergence is
declared on these two alone.

All but the first share one budget of iterations, and time may be limited.

A strength without a finite optimum is moved to the end of its box once the prior alone sets its
part of H, and reported in `FitResult.limits`. Where V has lost the digits that tell a better rho,
Newton steps on the gradient end the search. An end at which V is flat in a direction that is no
limit, or that the model objects to, is not converged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reml_sae.engine.criterion import CriterionValue
from reml_sae.engine.deadline import Deadline, reason
from reml_sae.engine.fellner_schall import LOOSE, fellner_schall
from reml_sae.engine.inner import InnerSolution
from reml_sae.engine.loop import Callback, Loop
from reml_sae.engine.protocol import ArrowModel, ModelPoint, Theta
from reml_sae.engine.quasi_newton import limits, quasi_newton
from reml_sae.engine.status import OuterStatus
from reml_sae.engine.trace import ANNEAL, REMLTrace
from reml_sae.engine.valley import Flatness, flatness
from reml_sae.errors import InnerConvergenceError, InputError, NotPositiveDefiniteError
from reml_sae.typing import Array, Curvature


@dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_reml`; always the best state met.

    Attributes
    ----------
    rho : (n_rho,) array
    theta : Theta
    criterion : float
        V at ``rho``.
    gradient : (n_rho,) array
    trace : REMLTrace
    status : OuterStatus
        How the loop ended.
    edf : float
        Effective degrees of freedom of the data fit.
    limits : tuple of (name, str)
        Strengths that ran to a limit, where V is flat: "infinite" or "zero".
    value : CriterionValue
    n_iter : int
    detail : str
        What is to be said of this end, where that is more than its status says.
    """

    rho: Array
    theta: Theta
    criterion: float
    gradient: Array
    trace: REMLTrace
    status: OuterStatus
    edf: float
    limits: tuple[tuple[str, str], ...]
    value: CriterionValue
    n_iter: int
    detail: str = ""

    def __repr__(self) -> str:
        state = "converged" if self.converged else f"NOT CONVERGED ({self.message})"
        return f"<FitResult: V = {self.criterion:.4f} nats, {state}>"

    @property
    def converged(self) -> bool:
        """Whether the fit is at an optimum of V.

        The projected gradient of V and the inner decrement are both below tolerance, V curves
        upwards in all that is not at a limit, and the model has no objection.
        """
        return self.status.converged

    @property
    def interrupted(self) -> bool:
        """Whether the user stopped the loop, or ``max_time`` ran out."""
        return self.status.interrupted

    @property
    def message(self) -> str:
        """Why the loop ended, as a sentence."""
        return self.detail or self.status.value

    def ended(self, status: OuterStatus, detail: str = "") -> FitResult:
        """The same state, of which another end is to be told."""
        return replace(self, status=status, detail=detail)

    def raised(self, nats: float) -> FitResult:
        """The same state of a model whose V has a constant more."""
        parts = {**self.value.parts, "objective": self.value.parts["objective"] + nats}
        value = replace(self.value, value=self.value.value + nats, parts=parts)
        return replace(self, criterion=self.criterion + nats, value=value)

    @property
    def inner(self) -> InnerSolution[ModelPoint]:
        """The inner solution at the optimum."""
        return self.value.inner


def fit_reml(
    model: ArrowModel,
    *,
    curvature: Curvature = "majorizer",
    max_outer: int = 200,
    max_fellner_schall: int = 8,
    rough: bool = False,
    max_time: float | Deadline | None = None,
    tol: float = 1e-6,
    inner_tol: float = 1e-8,
    max_inner: int = 100,
    valleys: bool = True,
    callbacks: Sequence[Callback] = (),
    trace: REMLTrace | None = None,
) -> FitResult:
    """Choose rho by minimising the REML / Laplace criterion.

    Parameters
    ----------
    model : ArrowModel
    curvature : "majorizer" or "exact"
    max_outer : int
        Budget of outer iterations of all kinds, each a row of the trace; annealing, whose length
        the schedules set, comes before them and is not counted.
    max_fellner_schall : int
        How many of them may be Fellner-Schall steps, which come first.
    rough : bool
        Whether the fit ends with these; it is then not converged.
    max_time : float or Deadline, optional
        Seconds, or the moment, after which no step is begun. The step in progress is finished, and
        one is always made, so that there is a state to return.
    tol : float
        The projected gradient of V must fall below ``tol`` times the number of entries of the data
        (V is of that order, up to a constant that depends on their units), of 5000 at most: in a
        strength V may be flat whatever that number is. Where V is too flat for that, a Newton
        step must lower it by less than 1e-3 nats.
    inner_tol : float
        Newton decrement of every inner solve. V is not stationary in theta, so its error is of
        the first order in the decrement and must lie below what a last step of the search gains.
    max_inner : int
        Newton steps of every inner solve at most; Fellner-Schall steps end where they did not do.
    valleys : bool
        Whether an optimum is searched for directions in which V is flat, by two gradients for
        every strength; see `reml_sae.engine.valley`.
    callbacks : sequence of callables
        Called with each `TraceRow`.
    trace : REMLTrace, optional
        Continued where given.

    Returns
    -------
    FitResult
        A fit that did not converge, or was interrupted, still returns its best state.

    Raises
    ------
    InputError
        Where a budget leaves no step to make.
    """
    least = 1 if rough else 0
    if max_outer < least:
        raise InputError(f"max_outer must be at least {least}, got {max_outer}")
    if max_fellner_schall < least:
        raise InputError(f"max_fellner_schall must be at least {least}, got {max_fellner_schall}")
    if not isinstance(max_time, Deadline):
        if max_time is not None and not max_time >= 0.0:
            raise InputError(f"max_time must be None or a number of seconds, got {max_time!r}")
        max_time = Deadline.within(max_time)
    loop = Loop(model, curvature, tol, inner_tol, callbacks,
                REMLTrace() if trace is None else trace, max_outer, max_time, max_inner)
    begun = len(loop.trace)
    flat, failure = None, ""
    try:
        _anneal(loop)
        fellner_schall(loop, max_fellner_schall)
        status = OuterStatus.ROUGH if rough else quasi_newton(loop)
        while valleys and status.converged:
            before = loop.found
            flat = flatness(loop)
            if loop.found is before:
                break
            status = quasi_newton(loop)
    except (InnerConvergenceError, NotPositiveDefiniteError) as error:
        if loop.best is None:
            raise
        status, failure = OuterStatus.FAILED, str(error)
    except KeyboardInterrupt as stop:
        status = reason(stop)
        if loop.best is None:
            raise
    return _result(loop, status, failure, flat, len(loop.trace) - begun)


def _anneal(loop: Loop) -> None:
    """Follow the mode until every scheduled weight has reached its end."""
    start = loop.model
    if start.schedule_end is None:
        return
    for iteration in range(start.schedule_end + 1):
        loop.model = start.apply_schedule(iteration)
        value = loop.evaluate(loop.best_rho, gradient=False, tol=LOOSE)
        loop.theta = value.inner.theta
        loop.record(ANNEAL, loop.best_rho, value)
        if loop.deadline.passed:
            break
    loop.model = start.settled()


def _result(loop: Loop, status: OuterStatus, failure: str, flat: Flatness | None, n_iter: int
            ) -> FitResult:
    value, rho = loop.found, loop.best_rho
    reached = limits(loop, rho, value) if flat is None else flat.limits
    objection = loop.model.objection(reached) or ("" if flat is None else flat.message)
    cause = value.inner.status.value if status is OuterStatus.NO_MODE else failure
    detail = f"{status.value}: {cause}" if cause else ""
    if objection and not status.interrupted:
        status, detail = OuterStatus.NO_OPTIMUM, objection
    return FitResult(
        rho=rho, theta=value.inner.theta, criterion=value.value, gradient=value.gradient,
        trace=loop.trace, status=status, edf=value.edf, limits=reached, value=value,
        n_iter=n_iter, detail=detail,
    )
