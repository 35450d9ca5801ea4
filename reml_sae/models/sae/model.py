"""The SAE-manifold (DESIGN A1, A7).

    eta_i = offset + b_0 + sum_k a_ik Phi_k(t_ik) B_k,    z_io ~ family(eta_io)

Priors: a by the assignment (on the simplex: entropy penalty and chart Jacobian), t_k by the
manifold, decoders B_k | rho ~ N(0, S_k(rho)^-1 (x) I_p) with S_k = sum_j lambda_j S_kj, one of them
the ridge of the decoder's size, and a fixed precision of the constant. In units of the data's root
mean square they keep the evidence proper: an atom without rows costs nothing and earns nothing, and
changing the units of Z changes V by N p log c alone.

Each atom has its own constant, so the simplex constraint sum_k a_k = 1 makes the intercept b_0
redundant; there it is not a parameter. Elsewhere it has the prior of the constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.models.sae.decoder_prior import DecoderPrior
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.quadrature.lattice import check_integration, no_quadrature
from reml_sae.models.sae.quadrature.parts import RowParts
from reml_sae.models.sae.quadrature.point import QuadraturePoint
from reml_sae.models.sae.row_prior import RowPrior
from reml_sae.models.sae.rows import SAERowSampler, refine_rows, row_objective
from reml_sae.models.sae.single.kinds import Kind, kinds_of, retract_kinds, uses_one_atom
from reml_sae.models.sae.single.point import SinglePoint
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.typing import Array, Index, Mask

Integration = Literal["auto", "laplace", "quadrature"]

QUADRATURE_BORDER, QUADRATURE_NODES, QUADRATURE_PAIRS = 1024, 20_000, 25_000_000
"""Largest decoder, nodes, and rows times nodes, of a quadrature that nobody asked for."""
QUADRATURE_DISPERSION = 1e-4
"""Noise, as a share of the data's variance, below which none is taken that nobody asked for: its
nodes grow as the noise falls, and Laplace's error, of the order of that share, is nothing."""


AnyPoint = SAEPoint | SinglePoint | QuadraturePoint


@dataclass
class _Last:
    """What was made last: solves, criterion and search ask for the same point one after another."""

    point: AnyPoint | None = None
    rows: RowParts | None = None

    def point_is_at(self, theta: Theta, rho: Array) -> bool:
        """Whether the point is that of a state and outer parameters."""
        return (self.point is not None and self.point.theta is theta
                and np.array_equal(self.point.rho, rho))

    def rows_are_at(self, beta: Array, rho: Array) -> bool:
        """Whether the rows are those of a decoder and outer parameters."""
        return (self.rows is not None and self.rows.beta is beta
                and np.array_equal(self.rows.rho, rho))


@dataclass(frozen=True, eq=False)
class SAEManifoldModel(SAEStructure):
    """Arrow model of an SAE-manifold at a fixed structure, with a state to start from.

    Parameters
    ----------
    Z, atoms, terms, active
        Data and structure; see `SAEStructure`, which has further ones by keyword.
    theta : Theta
        State from which solves start.
    rho : (n_rho,) array
        Outer parameters from which the outer loop starts.
    integration : {"auto", "laplace", "quadrature"}
        How the rows' own parameters are integrated out; "auto" takes quadrature where the model
        and its size allow it.
    """

    theta: Theta
    rho: Array
    _: KW_ONLY
    integration: Integration = "auto"
    _last: _Last = field(default_factory=_Last, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_rho()
        check_integration(
            self.integration, self.atoms, self.assignment, self.terms, self.family)

    def _check_rho(self) -> None:
        self._set(rho=np.asarray(self.rho, float))
        if self.rho.shape != (len(self.outer),):
            raise InputError(
                f"rho has shape {self.rho.shape}; this model has {len(self.outer)} outer "
                f"parameters: {', '.join(self.outer.names)}"
            )

    def _copied(self, **changed: Any) -> Self:
        copy = super()._copied(**changed, _last=_Last())
        copy._check_rho()
        return copy

    # --- protocol ----------------------------------------------------------------------------

    def hyperprior(self, rho: Array) -> tuple[float, Array]:
        """Negative log density of rho under its hyperpriors, and its gradient."""
        value, gradient = 0.0, np.zeros_like(rho)
        own = np.zeros(0)
        for term in self.terms:
            if term.target == "outer":
                chosen = term.penalty.select(self.outer.names)
                value += term.penalty.value(rho[chosen], own)
                value += term.penalty.log_partition(own, len(chosen))[0]
                gradient[chosen] += term.penalty.grad_target(rho[chosen], own)
        return value, gradient

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """None: every decoder and coordinate has a proper prior."""
        return ""

    def rho_frame(self, theta: Theta, rho: Array) -> Array:
        """The identity: outer parameters are logs."""
        return np.eye(len(rho))

    def rho_apart(self) -> Sequence[Index]:
        """The strengths of every atom, where rows use one atom each; none elsewhere."""
        if not self.kinds or self.by_quadrature:
            return ()
        of_atom = np.array([key.atom for key in self.outer.keys])
        sets = (np.flatnonzero(of_atom == k) for k in range(len(self.atoms)))
        return [own for own in sets if len(own)]

    def advance_rho(self, point: object, rho: Array) -> Array:
        """Rho with the degrees of freedom of its rows that fit best at a state of the rows."""
        if self.family.equal_weights or not self.family.row_weights or not isinstance(
                point, SAEPoint | SinglePoint):
            return rho
        rho, squares = rho.copy(), ((self.Z - point.eta) ** 2).sum(axis=1)
        psi = self.outer.psi
        rho[psi] = self.family.settled_psi(squares, self.shape[1], rho[psi])
        return rho

    def __repr__(self) -> str:
        return f"<SAEManifoldModel of {len(self.Z)} rows, {len(self.atoms)} atoms>"

    @property
    def effective_dim(self) -> int:
        """Parameters integrated by Laplace's method: M p, and those that rows carry."""
        return self.layout.basis_size * self.shape[1] if self.by_quadrature else self.n_carried

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts."""
        return self.theta

    def initial_rho(self) -> Array:
        """Outer parameters from which the outer loop starts."""
        return self.rho.copy()

    def at(self, theta: Theta, rho: Array) -> AnyPoint:
        """What the inner solve minimises, at a state and outer parameters.

        L + g of the decoders where the rows are integrated out by quadrature, F + g elsewhere.
        """
        rho = np.asarray(rho, float)
        if not self._last.point_is_at(theta, rho):
            rho = rho.copy()
            self._last.point = (
                QuadraturePoint(self, theta, rho, self.row_quadrature(theta.beta, rho))
                if self.by_quadrature else self._joint_at(theta, rho))
        assert self._last.point is not None
        return self._last.point

    def joint_at(self, theta: Theta, rho: Array) -> SAEPoint | SinglePoint:
        """The joint objective of rows and decoders at a state and outer parameters.

        The two points are the same function; where rows use one atom each, the second has less to
        compute.
        """
        if not self.by_quadrature:
            point = self.at(theta, rho)
            assert not isinstance(point, QuadraturePoint)
            return point
        return self._joint_at(theta, np.asarray(rho, float))

    def _joint_at(self, theta: Theta, rho: Array) -> SAEPoint | SinglePoint:
        if self.kinds:
            return SinglePoint(self, self.kinds, theta, rho)
        return SAEPoint(self, theta, rho)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of atoms, where rows use one atom each; empty elsewhere."""
        return kinds_of(self) if self._uses_one_atom else []

    @cached_property
    def _uses_one_atom(self) -> bool:
        return uses_one_atom(self)

    def objective(self, theta: Theta, rho: Array) -> float:
        """What the inner solve minimises, alone."""
        if self.by_quadrature:
            try:
                return self.at(theta, rho).objective
            except InnerConvergenceError:  # a decoder far out of reach
                return np.inf
        # a state that is taken is asked for its derivatives next
        return self.at(theta, rho).objective if self.kinds else self.joint_objective(theta, rho)

    def joint_objective(self, theta: Theta, rho: Array) -> float:
        """F alone, without the work for its derivatives."""
        amplitudes, features = self.scaled_basis(theta)
        eta = features @ theta.beta + self.offset
        return (float(self.family.row_loss(self.Z, eta, rho[self.outer.psi]).sum())
                + self.constant + RowPrior(self, theta, rho, amplitudes).value()
                + DecoderPrior(self, theta.beta, rho).value())

    def merge_rows(self, old: Theta, new: Theta, rho: Array) -> Theta:
        """The new beta, with each row's old or new parameters, whichever is better under it.

        Where a penalty couples the rows they cannot choose on their own: the new state.
        """
        if self.couples_rows or self.by_quadrature:
            return new
        kept = Theta(old.xi, new.beta)
        better = self.row_objective(new, rho) < self.row_objective(kept, rho)
        return Theta(np.where(better[:, None], new.xi, old.xi), new.beta)

    def retract(self, theta: Theta, step: Theta, factor: float = 1.0) -> Theta:
        """Move along a step; those of a `SinglePoint` are packed."""
        if step.xi.shape != theta.xi.shape:
            return retract_kinds(self.kinds, theta, step, factor)
        return super().retract(theta, step, factor)

    def with_state(self, theta: Theta, rho: Array, active: Mask | None = None) -> SAEManifoldModel:
        """The same model with another start and, where given, another active set."""
        return self.with_changes(
            theta=theta, rho=rho, active=self.active if active is None else active)

    def with_changes(self, **changed: Any) -> Self:
        """The same with other values of some fields.

        Where only its start is another it knows the point that was made last.
        """
        model = super().with_changes(**changed)
        if (changed.keys() <= {"theta", "rho", "active", "integration"}
                and model.integration == self.integration == "laplace"
                and np.array_equal(model.active, self.active)):
            model._set(_last=self._last)
        return model

    def with_offset(self, offset: Array) -> SAEManifoldModel:
        """The same model with another offset, (p,)."""
        return self.with_changes(offset=offset)

    def with_integration(self, integration: Integration) -> SAEManifoldModel:
        """The same model with its rows integrated out in another way."""
        return self.with_changes(integration=integration)

    def decided(self) -> SAEManifoldModel:
        """The same model with "auto" decided at its present state, whatever state it moves to.

        What is affordable depends on the state; V before and after a fit must be the same V.
        """
        model = self.with_integration("quadrature" if self.by_quadrature else "laplace")
        if model.by_quadrature:
            model._last.rows = self._last.rows
        return model

    def uncoupled(self, rho: Array) -> tuple[SAEManifoldModel, Array]:
        """The model without the penalties that couple rows, and its part of rho."""
        kept = [term for term in self.terms if not term.couples_rows]
        own = np.concatenate([*(term.rho(rho) for term in kept), rho[self.outer.psi]])
        return self.with_changes(terms=kept, rho=own), own

    def _of_rows(self, index: Index) -> dict[str, Any]:
        return {**super()._of_rows(index), "theta": Theta(self.theta.xi[index], self.theta.beta)}

    def with_held_counts(self) -> SAEManifoldModel:
        """The model with the present counts of its gates, whatever its active set becomes."""
        return self.with_changes(held_counts=self.gate_counts)

    @property
    def schedule_end(self) -> int | None:
        """First outer iteration at which every schedule is at its end; None without any."""
        schedules = [term.penalty.weight_schedule for term in self.terms]
        return max((schedule.end for schedule in schedules if schedule is not None), default=None)

    def apply_schedule(self, iteration: int) -> SAEManifoldModel:
        """The model with its scheduled weights at an outer iteration."""
        return self.with_changes(terms=[
            replace(term, penalty=term.penalty.apply_schedule(iteration)) for term in self.terms])

    def settled(self) -> SAEManifoldModel:
        """The model with its scheduled weights at their ends, without schedules."""
        if self.schedule_end is None:
            return self
        return self.with_changes(terms=[
            replace(term, penalty=term.penalty.settled()) for term in self.terms])

    # --- what the search for starts and codes asks ---------------------------------------------

    @cached_property
    def working(self) -> Array:
        """Data on the scale of the predictor, (N, p): Z itself under the identity link."""
        if self.family.row_weights:
            return self.Z
        return self.family.initial_eta(self.Z) - self.offset

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each row, (N,).

        Penalties on beta, and those that couple rows, are left out.
        """
        return row_objective(self, theta, rho)

    def row_sampler(self, theta: Theta, rho: Array) -> SAERowSampler:
        """Draws of the rows around a mode."""
        return SAERowSampler(self, theta, rho)

    def strengths(self, rho: Array) -> dict[str, float]:
        """Strength lambda = weight * exp(rho) of every learnable term, by name of its rho."""
        out: dict[str, float] = {}
        for term in self.terms:
            if term.penalty.rho_count():
                values = term.penalty.strengths(term.rho(rho))
                out.update(zip(term.names, map(float, values), strict=True))
        return out

    def weights(self) -> dict[str, float]:
        """Present weight of every penalty, by term."""
        return {term.label: float(term.penalty.weight) for term in self.terms}

    def refine_rows(self, theta: Theta, rho: Array, n_sweeps: int = 1) -> Theta:
        """Newton steps of every row on its own at fixed beta; no row's objective increases.

        The exact row Hessian where it is positive definite, the majorized one elsewhere; a row
        whose full step does not descend tries shorter ones and otherwise stays. Where a penalty
        couples the rows they cannot move on their own, and all stay.
        """
        return refine_rows(self, theta, rho, n_sweeps)

    # --- rows integrated by quadrature -----------------------------------------------------------

    @cached_property
    def by_quadrature(self) -> bool:
        """Whether the rows are integrated out by quadrature, not by Laplace's method.

        Unasked where the decoder's curvature is small enough to be dense, and the nodes that its
        state needs are not too many; a Laplace approximation is good where they are.
        """
        if self.integration == "laplace" or no_quadrature(
                self.atoms, self.assignment, self.terms, self.family):
            return False
        if (self.active.sum(axis=1) > 1).any():
            return False
        if self.integration == "quadrature":
            return True
        if self.layout.basis_size * self.shape[1] > QUADRATURE_BORDER or self.dense_terms:
            return False  # the observed curvature beside a penalty with none need not be definite
        if (self.outer.dispersion is not None
                and self.family.dispersion(self.rho[self.outer.psi]) < QUADRATURE_DISPERSION):
            return False
        try:
            rows = self.row_quadrature(self.theta.beta, self.rho)
        except InnerConvergenceError:
            return False
        return rows.n_nodes <= QUADRATURE_NODES and rows.n_pairs <= QUADRATURE_PAIRS

    def row_quadrature(self, beta: Array, rho: Array) -> RowParts:
        """The rows under a decoder."""
        if not self._last.rows_are_at(beta, rho):
            self._last.rows = RowParts(self, beta, rho)
        assert self._last.rows is not None
        return self._last.rows
