"""What an SAE-manifold consists of: which parameters rows have, and which priors act on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from reml_sae.assignments._base import Assignment
from reml_sae.engine.protocol import Theta
from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.manifolds import Manifold
from reml_sae.models.sae.mixture import Layout
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import NullSpacePrior
from reml_sae.typing import Array, Mask

DENSE_BORDER_LIMIT = 4096
"""Largest border that is carried where it is no product over outputs."""


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
    _gate_counts: tuple[Array, int] | None

    @property
    def rho_names(self) -> tuple[str, ...]:
        """Names of the outer parameters; those of the family (standardised units) are last."""
        return outer_names(self.terms, self.family)

    def objection(self, limits: Sequence[tuple[str, str]]) -> str:
        """None: every decoder and coordinate has a proper prior."""
        return ""

    def rho_frame(self, theta: Theta, rho: Array) -> Array:
        """The identity: outer parameters are logs."""
        return np.eye(len(rho))

    def advance_rho(self, point: object, rho: Array) -> Array:
        """Rho itself: no outer parameter has a step of its own."""
        return rho

    @property
    def always_carried(self) -> Mask:
        """Atoms (K,) whose coordinates every row carries, because a penalty couples them."""
        coupled = {term.atom for term in self.terms if term.couples_rows}
        return np.array([k in coupled for k in range(len(self.atoms))])

    def psi(self, rho: Array) -> Array:
        """The family's part of rho, (n_psi,)."""
        return rho[len(rho) - self.family.n_psi:]

    def scale_floor(self, rho: Array) -> float:
        """phi of `scale`: the dispersion, or one where the family has none."""
        return self.family.dispersion(self.psi(rho)) if self.family.has_dispersion else 1.0

    @property
    def dense_terms(self) -> list[PenaltyTerm]:
        """Decoder penalties that are no quadratic form of every output alike."""
        return dense_terms(self.terms)

    @property
    def has_dense_border(self) -> bool:
        """Whether the border is no product over outputs.

        A decoder penalty may differ between outputs, or the family's weights.
        """
        return bool(self.dense_terms) or not self.family.equal_weights

    @property
    def has_gaussian_decoder(self) -> list[bool]:
        """Which decoders have the Gaussian prior, not that of a penalty that is itself proper."""
        owned = {term.atom for term in self.dense_terms if term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

    @cached_property
    def is_open(self) -> Mask:
        """Which atoms (N, K) enter a row's predictor."""
        return self.assignment.open_mask(self.active)

    @cached_property
    def carried(self) -> Mask:
        """Which local parameters (N, q) a row has; the others are held."""
        return np.concatenate(
            [self.assignment.carried(self.active), self.active_coordinates], axis=1)

    @property
    def has_manifold_prior(self) -> list[bool]:
        """Whether an atom's coordinates have the prior of its manifold, not that of a penalty."""
        owned = {term.atom for term in self.terms
                 if term.target == "coordinates" and term.penalty.is_normalised}
        return [k not in owned for k in range(len(self.atoms))]

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


def with_own_priors(
    assignment: Assignment, terms: Sequence[PenaltyTerm]
) -> tuple[PenaltyTerm, ...]:
    """Add the priors that the assignment brings, where their target has none."""
    given = {term.target for term in terms}
    return (*terms, *(PenaltyTerm(prior.penalty, prior.target, prior.atom)
                      for prior in assignment.own_priors() if prior.target not in given))


def with_null_priors(terms: Sequence[PenaltyTerm], n_rows: int) -> tuple[PenaltyTerm, ...]:
    """Add the priors of coordinates along which their own prior is flat, anew for these rows.

    Raises
    ------
    InputError
        Where one would be too large, naming the kind that is flat.
    """
    own = without_null_priors(terms)
    out = list(own)
    for term in own:
        if term.target == "coordinates" and term.penalty.is_normalised:
            projector = term.penalty.null_space(n_rows)
            if projector is not None:
                prior = NullSpacePrior(projector=projector)
                out.append(PenaltyTerm(prior, "coordinates", term.atom))
    return tuple(out)


def without_null_priors(terms: Sequence[PenaltyTerm]) -> tuple[PenaltyTerm, ...]:
    """The terms but those that `with_null_priors` adds."""
    return tuple(term for term in terms if not isinstance(term.penalty, NullSpacePrior))


def outer_names(terms: Sequence[PenaltyTerm], family: Family) -> tuple[str, ...]:
    """Names of all outer parameters, in order."""
    return (*(name for term in terms for name in term.names), *family.psi_names)


def dense_terms(terms: Sequence[PenaltyTerm]) -> list[PenaltyTerm]:
    """Terms for which the border is no product over outputs."""
    return [term for term in terms if term.target in ("decoder", "decoders")
            and not term.is_quadratic_decoder]


def check_terms(
    terms: Sequence[PenaltyTerm], atoms: Sequence[Manifold], assignment: Assignment,
    family: Family, n_outputs: int,
) -> None:
    """Refuse penalties that this assignment, this family or this size does not go with.

    Parameters
    ----------
    terms : sequence of PenaltyTerm
        The priors of `with_own_priors` included.
    atoms : sequence of Manifold
    assignment : Assignment
    family : Family
    n_outputs : int
        Columns p of the data.

    Raises
    ------
    InputError
        Naming the kinds, and what they do not go with.
    """
    names = outer_names(terms, family)
    for term in terms:
        reason = assignment.objection(term.penalty)
        if reason:
            raise InputError(reason)
        if term.target == "outer" and not len(term.penalty.select(names)):
            raise InputError(
                f"{term.penalty.KIND_TAG} selects no outer parameter by names="
                f"{list(term.penalty.names)}; under the {family.name} family there are "
                f"{', '.join(names) or 'none'}"
            )
    dense = dense_terms(terms)
    layout = Layout(atoms, has_intercept=assignment.has_intercept)
    size = layout.basis_size * n_outputs
    if (dense or not family.equal_weights) and size > DENSE_BORDER_LIMIT:
        kinds = {term.penalty.KIND_TAG for term in dense}
        if not family.equal_weights:
            kinds.add(f"the {family.name} family")
        raise InputError(
            f"{', '.join(sorted(kinds))} needs a dense border of {size} decoder parameters, "
            f"the limit is {DENSE_BORDER_LIMIT}; use fewer columns or atoms"
        )
