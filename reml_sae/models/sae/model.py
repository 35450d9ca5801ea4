"""The SAE-manifold (DESIGN A1, A7).

    eta_i = offset + b_0 + sum_k a_ik Phi_k(t_ik) B_k,    z_io ~ family(eta_io)

Priors: a by the assignment (on the simplex: entropy penalty and chart Jacobian), t_k by the
manifold, decoders B_k | rho ~ N(0, S_k(rho)^-1 (x) I_p) with S_k = precision * I + sum_j lambda_j
S_kj. The fixed unit precision, in units of the data's root mean square, keeps the evidence proper:
an atom without rows costs nothing and earns nothing, and changing the units of Z changes V by
N p log c alone.

Each atom has its own constant, so the simplex constraint sum_k a_k = 1 makes the intercept b_0
redundant; there it is not a parameter. Elsewhere it has the prior of the decoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments._base import Amplitudes, Assignment
from reml_sae.assignments.softmax import SoftmaxChart
from reml_sae.engine.protocol import Theta
from reml_sae.errors import InnerConvergenceError, InputError
from reml_sae.families import Family, Gaussian
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.bound import bind_rows, manifold_priors
from reml_sae.models.sae.gauge import Symmetry, kept_symmetries, move_atom
from reml_sae.models.sae.mixture import Layout, Mixture
from reml_sae.models.sae.penalties import PenaltyPoint
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.quadrature.lattice import check_integration, no_quadrature
from reml_sae.models.sae.quadrature.parts import RowParts
from reml_sae.models.sae.quadrature.point import QuadraturePoint
from reml_sae.models.sae.rows import SAERowSampler, refine_rows
from reml_sae.models.sae.structure import (
    SAEStructure,
    check_terms,
    with_null_priors,
    with_own_priors,
    without_null_priors,
)
from reml_sae.models.sae.terms import PenaltyTerm, number_terms
from reml_sae.typing import Array, Mask

Integration = Literal["auto", "laplace", "quadrature"]

DISPERSION_BOX = (-27.0, 5.0)
QUADRATURE_BORDER, QUADRATURE_NODES, QUADRATURE_PAIRS = 1024, 20_000, 25_000_000
"""Largest decoder, nodes, and rows times nodes, of a quadrature that nobody asked for."""


class SAEManifoldModel(SAEStructure):
    """Arrow model of an SAE-manifold at a fixed structure.

    Parameters
    ----------
    Z : (N, p) array
        Data, centred and divided by ``unit``.
    atoms : sequence of Manifold
    terms : sequence of PenaltyTerm
    active : (N, K) bool
        Which coordinates each row carries; the others are integrated out with their prior.
    theta : Theta
        State from which solves start.
    rho : (n_rho,) array
        Outer parameters from which the outer loop starts.
    assignment : Assignment, optional
        How rows use atoms; softmax at temperature 1 by default.
    unit : float
        Root mean square of the data in their own units; enters V as N p log(unit).
    decoder_precision : float
        Prior precision of the decoders in standardised units.
    symmetries : list of Symmetry, optional
        Continuous symmetries of the atoms that no penalty breaks, where they are known.
    family : Family, optional
        Likelihood of the entries; Gaussian by default.
    offset : (p,) array, optional
        Part of the predictor that is not fitted; zero by default.
    gate_counts : ((K,) array, int), optional
        How many rows use each atom, of how many; counted in ``active`` by default. Sets what it
        costs a row to open a gate under a Beta-Bernoulli prior.
    integration : {"auto", "laplace", "quadrature"}
        How the rows' own parameters are integrated out; "auto" takes quadrature where the model
        and its size allow it.
    """

    def __init__(
        self,
        Z: Array,
        atoms: Sequence[Manifold],
        terms: Sequence[PenaltyTerm],
        active: Mask,
        theta: Theta,
        rho: Array,
        *,
        assignment: Assignment | None = None,
        unit: float = 1.0,
        decoder_precision: float = 1.0,
        symmetries: list[Symmetry] | None = None,
        family: Family | None = None,
        offset: Array | None = None,
        gate_counts: tuple[Array, int] | None = None,
        integration: Integration = "auto",
    ):
        self.Z = Z
        self.atoms = tuple(atoms)
        self.assignment = SoftmaxChart(len(self.atoms)) if assignment is None else assignment
        self.layout = Layout(atoms, has_intercept=self.assignment.has_intercept)
        self.terms = number_terms(with_null_priors(
            with_own_priors(self.assignment, terms), len(Z)))
        self.row_terms = [term for term in self.terms if term.on_rows]
        self.couples_rows = any(term.couples_rows for term in self.terms)
        self.active = active | self.always_carried
        self.active.flags.writeable = False  # much that is computed once depends on it
        self.active_coordinates = self.active[:, self.layout.coordinate_atom]
        self._gate_counts = gate_counts
        self.unit = unit
        self.family = Gaussian() if family is None else family
        self.offset: Array = np.zeros(Z.shape[1]) if offset is None else offset
        self.decoder_precision = decoder_precision
        check_terms(without_null_priors(self.terms), self.atoms, self.assignment, self.family,
                    Z.shape[1])
        self._theta, self._rho = theta, np.asarray(rho, float)
        self.integration: Integration = integration
        self._last: tuple[Theta, Array, SAEPoint | QuadraturePoint] | None = None
        if self._rho.shape != (len(self.rho_names),):
            raise InputError(
                f"rho has shape {self._rho.shape}; this model has {len(self.rho_names)} outer "
                f"parameters: {', '.join(self.rho_names)}"
            )
        self.symmetries = (kept_symmetries(self.layout, self.terms, *self.shape)
                           if symmetries is None else symmetries)
        check_integration(integration, self.atoms, self.assignment, self.terms, self.family)

    # --- protocol ----------------------------------------------------------------------------

    @property
    def rho_bounds(self) -> Array:
        """Box that the outer loop searches, (n_rho, 2)."""
        boxes = [term.penalty.rho_bounds() for term in self.terms]
        own = np.array([DISPERSION_BOX]) if self.family.has_dispersion else (
            self.family.psi_bounds())
        return np.concatenate([*boxes, own])

    @property
    def quadratic_rho(self) -> Mask:
        """Strengths of quadratic penalties, and the dispersion."""
        mask = np.full(len(self.rho_names), self.family.has_dispersion)
        for term in self.terms:
            mask[term.where] = term.penalty.is_quadratic
        return mask

    def hyperprior(self, rho: Array) -> tuple[float, Array]:
        """Negative log density of rho under its hyperpriors, and its gradient."""
        value, gradient = 0.0, np.zeros_like(rho)
        own = np.zeros(0)
        for term in self.terms:
            if term.target == "outer":
                chosen = term.penalty.select(self.rho_names)
                value += term.penalty.value(rho[chosen], own)
                value += term.penalty.log_partition(own, len(chosen))[0]
                gradient[chosen] += term.penalty.grad_target(rho[chosen], own)
        return value, gradient

    @property
    def shape(self) -> tuple[int, int]:
        """(N, p)."""
        return self.Z.shape[0], self.Z.shape[1]

    @property
    def effective_dim(self) -> int:
        """Parameters integrated by Laplace's method: M p, and those that rows carry."""
        rows = 0 if self.by_quadrature else int(self.carried.sum())
        return rows + self.layout.basis_size * self.shape[1]

    def initial_theta(self) -> Theta:
        """State from which an inner solve starts."""
        return self._theta

    def initial_rho(self) -> Array:
        """Outer parameters from which the outer loop starts."""
        return self._rho.copy()

    def at(self, theta: Theta, rho: Array) -> SAEPoint | QuadraturePoint:
        """What the inner solve minimises, at a state and outer parameters.

        L of the decoders where the rows are integrated out by quadrature, F + g elsewhere.
        """
        rho = np.asarray(rho, float)
        if self._last is not None and self._last[0] is theta and (self._last[1] == rho).all():
            return self._last[2]
        point: SAEPoint | QuadraturePoint
        if self.by_quadrature:
            point = QuadraturePoint(self, theta, rho, self.row_quadrature(theta.beta, rho))
        else:
            point = SAEPoint(self, theta, rho)
        self._last = theta, rho.copy(), point
        return point

    def joint_at(self, theta: Theta, rho: Array) -> SAEPoint:
        """The joint objective of rows and decoders at a state and outer parameters."""
        return SAEPoint(self, theta, np.asarray(rho, float))

    def retract(self, theta: Theta, step: Theta, factor: float = 1.0) -> Theta:
        """Move along a step, on the manifolds of the coordinates and the orbits of the gauge."""
        xi = theta.xi + factor * step.xi
        beta = theta.beta + factor * step.beta
        for k, atom in enumerate(self.atoms):
            t, b = self.coordinate_columns(k), self.layout.basis_slices[k]
            xi[:, t], beta[b] = move_atom(atom, theta.xi[:, t], theta.beta[b],
                                     factor * step.xi[:, t], factor * step.beta[b])
        return Theta(xi, beta)

    def objective(self, theta: Theta, rho: Array) -> float:
        """What the inner solve minimises, alone."""
        if self.by_quadrature:
            try:
                return self.at(theta, rho).objective
            except InnerConvergenceError:  # a decoder far out of reach
                return np.inf
        return self.joint_objective(theta, rho)

    def joint_objective(self, theta: Theta, rho: Array) -> float:
        """F alone, without the work for its derivatives."""
        amplitudes, features = self.scaled_basis(theta)
        loss = self.family.loss(self.Z, features @ theta.beta + self.offset, self.psi(rho)).sum()
        n, p = self.shape
        return float(loss) + n * p * np.log(self.unit) + PenaltyPoint(
            self, theta, rho, amplitudes).value()

    def merge_rows(self, old: Theta, new: Theta, rho: Array) -> Theta:
        """The new beta, with each row's old or new parameters, whichever is better under it.

        Where a penalty couples the rows they cannot choose on their own: the new state.
        """
        if self.couples_rows or self.by_quadrature:
            return new
        kept = Theta(old.xi, new.beta)
        better = self.row_objective(new, rho) < self.row_objective(kept, rho)
        return Theta(np.where(better[:, None], new.xi, old.xi), new.beta)

    def with_state(self, theta: Theta, rho: Array, active: Mask | None = None) -> SAEManifoldModel:
        """The same model with another start and, where given, another active set."""
        return self._with(theta=theta, rho=rho, active=self.active if active is None else active)

    def with_offset(self, offset: Array) -> SAEManifoldModel:
        """The same model with another offset, (p,)."""
        return self._with(offset=offset)

    def with_integration(self, integration: Integration) -> SAEManifoldModel:
        """The same model with its rows integrated out in another way."""
        return self._with(integration=integration)

    def decided(self) -> SAEManifoldModel:
        """The same model with "auto" decided at its present state, whatever state it moves to.

        What is affordable depends on the state; V before and after a fit must be the same V.
        """
        return self.with_integration("quadrature" if self.by_quadrature else "laplace")

    def uncoupled(self, rho: Array) -> tuple[SAEManifoldModel, Array]:
        """The model without the penalties that couple rows, and its part of rho."""
        kept = [term for term in self.terms if not term.couples_rows]
        own = np.concatenate([*(term.rho(rho) for term in kept), self.psi(rho)])
        return self._with(terms=kept, rho=own), own

    def rows(self, index: NDArray[np.intp]) -> SAEManifoldModel:
        """The model of some of the rows."""
        if len(index) == len(self.Z):
            return self
        terms = [self.restricted(term, index) if term.on_rows else term for term in self.terms]
        return self._with(Z=self.Z[index], active=self.active[index], terms=terms,
                          family=self.family.restrict(index, self.shape),
                          symmetries=self.symmetries, gate_counts=self.gate_counts,
                          theta=Theta(self._theta.xi[index], self._theta.beta))

    @cached_property
    def without_rows(self) -> SAEManifoldModel:
        """The model of none of the rows: what belongs to the decoders alone."""
        return self.rows(np.zeros(0, np.intp))

    def with_gate_counts(self, counts: tuple[Array, int]) -> SAEManifoldModel:
        """The model with these counts of the gates, whatever its active set."""
        return self._with(gate_counts=counts)

    @property
    def schedule_end(self) -> int | None:
        """First outer iteration at which every schedule is at its end; None without any."""
        schedules = [term.penalty.weight_schedule for term in self.terms]
        return max((schedule.end for schedule in schedules if schedule is not None), default=None)

    def apply_schedule(self, iteration: int) -> SAEManifoldModel:
        """The model with its scheduled weights at an outer iteration."""
        return self._with(terms=[replace(term, penalty=term.penalty.apply_schedule(iteration))
                                 for term in self.terms])

    def settled(self) -> SAEManifoldModel:
        """The model with its scheduled weights at their ends, without schedules."""
        return self._with(terms=[replace(term, penalty=term.penalty.settled())
                                 for term in self.terms])

    def _with(self, **changed: Any) -> SAEManifoldModel:
        arguments: dict[str, Any] = {
            "Z": self.Z, "atoms": self.atoms, "terms": self.terms, "active": self.active,
            "theta": self._theta, "rho": self._rho, "assignment": self.assignment,
            "gate_counts": self._gate_counts, "unit": self.unit,
            "decoder_precision": self.decoder_precision,
            "family": self.family, "offset": self.offset,
            "symmetries": None if "terms" in changed else self.symmetries,
            "integration": self.integration,
        }
        return SAEManifoldModel(**{**arguments, **changed})

    # --- what the search for starts and codes asks ---------------------------------------------

    @cached_property
    def working(self) -> Array:
        """Data on the scale of the predictor, (N, p): Z itself under the identity link."""
        if self.family.equal_weights:
            return self.Z
        return self.family.initial_eta(self.Z) - self.offset

    # --- pieces that the point and the codes share ---------------------------------------------

    def coordinate_columns(self, k: int) -> slice:
        """Columns of xi that hold the coordinates of atom k."""
        where = self.layout.coordinate_slices[k]
        return slice(self.assignment.dim + where.start, self.assignment.dim + where.stop)

    def logits(self, theta: Theta) -> Array:
        """Logits z (N, K)."""
        return self.assignment.logits(theta.xi[:, : self.assignment.dim])

    def mixture(self, theta: Theta, coefficients: Array, order: int) -> Mixture:
        """Linearise at a state."""
        amplitudes = self.assignment.amplitudes(self.logits(theta), self.is_open)
        return Mixture(self.layout, amplitudes, theta.xi[:, self.assignment.dim:], self.active,
                       coefficients, order, self.assignment.centres(self.active))

    def decoder_gram(self, rho: Array) -> list[Array]:
        """Prior precision S_k(rho) of every decoder, (M_k, M_k), and of the intercept."""
        grams = [self.decoder_precision * float(gaussian) * np.eye(atom.basis_size)
                 for atom, gaussian in zip(self.atoms, self.has_gaussian_decoder, strict=True)]
        for term in self.terms:
            if term.is_quadratic_decoder:
                grams[term.atom] = grams[term.atom] + term.penalty.gram(term.rho(rho))
        if self.layout.has_intercept:
            grams.append(np.full((1, 1), self.decoder_precision))
        return grams

    def opening_costs(self, rho: Array) -> Array:
        """Nats (K,) that the prior on gates charges a row for using an atom."""
        for term in self.terms:
            if term.target == "gates":
                costs: Array = term.penalty.opening_cost(*self.gate_counts, term.rho(rho))
                return costs
        return np.zeros(len(self.atoms))

    def row_penalties(self, theta: Theta, rho: Array, amplitudes: Amplitudes) -> Array:
        """Penalties of every row on its own, with the chart's Jacobian: (N,)."""
        values = self.is_open @ self.opening_costs(rho) + amplitudes.log_jacobian()
        for prior in manifold_priors(self, theta, 0):
            values[prior.rows] += prior.jet[0]
        for term in self.row_terms:
            if not term.couples_rows:
                bound = bind_rows(self, term, theta, rho)
                np.add.at(values, bound.rows,
                          bound.term.penalty.row_values(bound.target, bound.rho))
        return values

    def row_objective(self, theta: Theta, rho: Array) -> Array:
        """The part of F that belongs to each row, (N,).

        Penalties on beta, and those that couple rows, are left out.
        """
        amplitudes, features = self.scaled_basis(theta)
        eta = features @ theta.beta + self.offset
        loss = self.family.loss(self.Z, eta, self.psi(rho)).sum(1)
        loss += self.shape[1] * np.log(self.unit)
        return loss + self.row_penalties(theta, rho, amplitudes)

    def row_partitions(self, theta: Theta, rho: Array) -> Array:
        """Log partition of the priors of every row's own parameters, (N,).

        What the priors of coordinates, amplitudes and logits have in `log_normalizer`, row by row;
        with what Laplace's method loses of shares near zero; what is the same for all rows whatever
        they carry is left out.
        """
        out = -self.assignment.shut_gain(self.active)
        for k, (atom, own) in enumerate(zip(self.atoms, self.has_manifold_prior, strict=True)):
            if own:
                out[self.active[:, k]] += atom.log_prior_volume()
        for term in self.row_terms:
            if term.target == "logits" or term.couples_rows or not term.penalty.is_normalised:
                continue
            for k in range(len(self.atoms)) if term.atom < 0 else (term.atom,):
                rows = self.is_open[:, k] if term.target == "amplitudes" else self.active[:, k]
                out[rows] += self._partition_of_rows(term, np.flatnonzero(rows), rho)
            if term.target == "amplitudes":
                cost, _ = self.assignment.shut_cost(float(term.penalty.strengths(term.rho(rho))[0]))
                out += cost * self.assignment.shut(self.logits(theta), self.active)[:, term.atom]
        return out

    def _partition_of_rows(
        self, term: PenaltyTerm, rows: NDArray[np.intp], rho: Array
    ) -> float | Array:
        """Log partition of a term on rows, for one row or for every one of them."""
        own = term.rho(rho)
        one = term.penalty.restrict(np.zeros(1, np.intp), len(self.Z))
        if one is term.penalty:
            return float(one.log_partition(own, 1)[0])
        each = [term.penalty.restrict(row, len(self.Z)).log_partition(own, 1)[0]
                for row in rows[:, None]]
        return np.array(each)

    def row_sampler(self, theta: Theta, rho: Array) -> SAERowSampler:
        """Draws of the rows around a mode."""
        return SAERowSampler(self, theta, rho)

    def row_residuals(self, theta: Theta) -> Array:
        """Data minus mean, (N, p), standardised units."""
        return self.Z - self.family.mean(self.scaled_basis(theta)[1] @ theta.beta + self.offset)

    def scaled_basis(self, theta: Theta) -> tuple[Amplitudes, Array]:
        """Amplitudes of (N, K), and the features phi (N, M)."""
        mixture = self.mixture(theta, np.zeros((self.layout.basis_size, 0)), order=1)
        return mixture.amplitudes, mixture.features()

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
        return theta if self.couples_rows else refine_rows(self, theta, rho, n_sweeps)

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
        try:
            rows = self.row_quadrature(self._theta.beta, self._rho)
        except InnerConvergenceError:
            return False
        return rows.n_nodes <= QUADRATURE_NODES and rows.n_pairs <= QUADRATURE_PAIRS

    def row_quadrature(self, beta: Array, rho: Array) -> RowParts:
        """The rows under a decoder."""
        return RowParts(self, beta, rho)
