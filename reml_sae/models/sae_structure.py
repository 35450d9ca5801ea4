"""What an SAE-manifold consists of: which parameters rows have, and which priors act on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.inner._protocol import Theta
from reml_sae.manifolds import Manifold
from reml_sae.models.assignment import Assignment
from reml_sae.models.gates import OrderedBetaBernoulli
from reml_sae.models.mixture import Layout
from reml_sae.models.softmax_chart import SoftmaxChart
from reml_sae.models.terms import PenaltyTerm
from reml_sae.penalties import ARDPenalty, OrderedBetaBernoulliPenalty

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

DENSE_BORDER_LIMIT = 4096
"""Largest border that is carried where it is no product over outputs."""
QUADRATURE_LIMIT = 1024
"""Largest border of a quadrature of the rows that is chosen unasked; its curvature is dense."""


class SAEStructure:
    """Structure of an SAE-manifold at fixed atoms, penalties and active set."""

    Z: Array
    atoms: tuple[Manifold, ...]
    layout: Layout
    assignment: Assignment
    terms: tuple[PenaltyTerm, ...]
    family: Family
    active: Mask
    active_coordinates: Mask
    couples_rows: bool
    row_terms: list[PenaltyTerm]
    integration: str
    _gate_counts: tuple[Array, int] | None

    @property
    def rho_names(self) -> tuple[str, ...]:
        """Names of the outer parameters; those of the family (standardised units) are last."""
        return (*(name for term in self.terms for name in term.names), *self.family.psi_names)

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """None: every decoder and coordinate has a proper prior."""
        return ""

    def rho_frame(self, theta: Theta, rho: Array) -> Array:
        """The identity: outer parameters are logs."""
        return np.eye(len(rho))

    def advance_rho(self, point: object, rho: Array) -> Array:
        """Rho itself: no outer parameter has a step of its own."""
        return rho

    def _check_terms(self) -> None:
        if self.couples_rows and self.assignment.hard_support:
            kinds = {term.penalty.KIND_TAG for term in self.terms if term.couples_rows}
            raise InputError(
                f"{', '.join(sorted(kinds))} couples the coordinates of all rows, but under "
                f"assignment={self.assignment.name!r} a row has none of the atoms that it does "
                "not use; use assignment='softmax'"
            )
        for term in self.terms:
            if term.target == "outer" and not len(term.penalty.select(self.rho_names)):
                raise InputError(
                    f"{term.penalty.KIND_TAG} selects no outer parameter by names="
                    f"{list(term.penalty.names)}; there are {', '.join(self.rho_names)}"
                )
        size = self.layout.basis_size * self.Z.shape[1]
        if self.has_dense_border and size > DENSE_BORDER_LIMIT:
            kinds = {term.penalty.KIND_TAG for term in self._dense_terms}
            if not self.family.equal_weights:
                kinds.add(f"the {self.family.name} family")
            raise InputError(
                f"{', '.join(sorted(kinds))} needs a dense border of {size} decoder parameters, "
                f"the limit is {DENSE_BORDER_LIMIT}; use fewer columns or atoms"
            )

    @property
    def always_carried(self) -> Mask:
        """Atoms (K,) whose coordinates every row carries, because a penalty couples them."""
        coupled = {term.atom for term in self.terms if term.couples_rows}
        return np.array([k in coupled for k in range(len(self.atoms))])

    def psi(self, rho: Array) -> Array:
        """The family's part of rho, (n_psi,)."""
        return rho[len(rho) - self.family.n_psi:]

    @property
    def _dense_terms(self) -> list[PenaltyTerm]:
        return [term for term in self.terms if term.target in ("decoder", "decoders")
                and not term.is_quadratic_decoder]

    @property
    def has_dense_border(self) -> bool:
        """Whether the border is no product over outputs.

        A decoder penalty may differ between outputs, or the family's weights.
        """
        return bool(self._dense_terms) or not self.family.equal_weights

    @property
    def has_gaussian_decoder(self) -> list[bool]:
        """Which decoders have the Gaussian prior, not that of a penalty that is itself proper."""
        owned = {term.atom for term in self._dense_terms if term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

    @property
    def simplex(self) -> SoftmaxChart | None:
        """The chart whose Jacobian is part of the prior; None where there is none."""
        chart = self.assignment
        return chart if isinstance(chart, SoftmaxChart) and chart.dim else None

    @cached_property
    def is_open(self) -> Mask:
        """Which atoms (N, K) enter a row's predictor."""
        return self.active if self.assignment.hard_support else np.ones_like(self.active)

    @property
    def centres(self) -> Mask | None:
        """Rows (N, K) that have an atom's constant whole; None where it goes with the amplitude.

        Under threshold gates no row has one: atoms are centred on the intercept.
        """
        if self.assignment.on_simplex:
            return None
        return self.active if self.assignment.hard_support else np.zeros_like(self.active)

    @cached_property
    def carried(self) -> Mask:
        """Which local parameters (N, q) a row has; the others are held."""
        opens = (self.active if self.assignment.hard_support
                 else np.ones((len(self.active), self.assignment.dim), bool))
        return np.concatenate([opens, self.active_coordinates], axis=1)

    @property
    def has_manifold_prior(self) -> list[bool]:
        """Whether an atom's coordinates have the prior of its manifold, not that of a penalty."""
        owned = {term.atom for term in self.terms
                 if term.target == "coordinates" and term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

    @property
    def first_integrated(self) -> int:
        """First column of xi that the decoders' mode has integrated out: all but the shares."""
        return self.assignment.dim if self.assignment.on_simplex else 0

    @cached_property
    def by_quadrature(self) -> bool:
        """Whether the rows are integrated out by quadrature, not by Laplace's method."""
        if self.integration == "laplace" or self._without_quadrature():
            return False
        return self.integration == "quadrature" or not self._too_large()

    def _without_quadrature(self) -> str:
        """Why no quadrature of the rows exists; empty where one does."""
        if len(self.atoms) > 1 or self.assignment.dim:
            return "a row has more than the coordinates of one atom"
        if self.row_terms:
            return "a penalty acts on the rows"
        if not self.atoms[0].has_rule:
            return f"{self.atoms[0]!r} has no quadrature of its coordinates"
        return ""

    def _too_large(self) -> bool:
        return self.layout.basis_size * self.Z.shape[1] > QUADRATURE_LIMIT

    def _check_quadrature(self) -> None:
        reason = self._without_quadrature()
        if reason:
            raise InputError(f"integration='quadrature' cannot be used: {reason}; use 'auto' or "
                             "'laplace'")

    @property
    def log_multiplicity(self) -> float:
        """Log of how many equal modes the decoders have beside the continuous gauge.

        Mirror images of every atom that rows use, and the permutations of atoms of one kind.
        """
        used = np.flatnonzero(self.active.any(axis=0))
        shaped = {term.atom for term in self.terms if term.target == "coordinates"}
        total = sum(self.atoms[k].log_multiplicity for k in used if k not in shaped)
        if any(term.target == "gates" for term in self.terms):  # the prior orders the atoms
            return total
        kinds = [repr(atom) for atom in self.atoms]
        for kind in set(kinds):
            alike = [k for k in range(len(kinds)) if kinds[k] == kind]
            idle = len(alike) - len(set(alike) & set(used.tolist()))
            total += float(gammaln(len(alike) + 1) - gammaln(idle + 1))
        return total

    @property
    def gate_counts(self) -> tuple[Array, int]:
        """How many rows use each atom (K,), and of how many."""
        if self._gate_counts is not None:
            return self._gate_counts
        return self.active.sum(axis=0).astype(float), len(self.active)

    def restricted(self, term: PenaltyTerm, rows: NDArray[np.intp]) -> PenaltyTerm:
        """A row-wise term for some of the rows."""
        return replace(term, penalty=term.penalty.restrict(rows, len(self.Z)))


def with_amplitude_priors(
    assignment: Assignment, terms: Sequence[PenaltyTerm]
) -> tuple[PenaltyTerm, ...]:
    """Add the priors of logits that do not live on the simplex, where they are missing."""
    if assignment.on_simplex or any(term.target == "amplitudes" for term in terms):
        return tuple(terms)
    normal = ARDPenalty(latent_dim=1)
    if not assignment.hard_support:
        return (*terms, *(PenaltyTerm(normal, "amplitudes", k) for k in range(assignment.n_atoms)))
    own = [PenaltyTerm(normal, "amplitudes")]
    has_gates = any(term.target == "gates" for term in terms)
    if isinstance(assignment, OrderedBetaBernoulli) and not has_gates:
        own.append(PenaltyTerm(OrderedBetaBernoulliPenalty(k_atoms=assignment.n_atoms), "gates"))
    return (*terms, *own)
