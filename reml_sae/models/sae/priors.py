"""Which priors a model has beside those that it was given, and which it refuses."""

from __future__ import annotations

from collections.abc import Sequence

from reml_sae.assignments import Assignment
from reml_sae.engine import Outer
from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.manifolds import Manifold
from reml_sae.models.family_part import family_part
from reml_sae.models.sae.mixture import Layout
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import NullSpacePrior

DISPERSION_BOX = (-27.0, 5.0)
"""Log dispersion that the outer loop searches, in units of the data's root mean square."""
DENSE_BORDER_LIMIT = 4096
"""Largest border that is carried where it is no product over outputs."""


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


def outer_of(terms: Sequence[PenaltyTerm], family: Family) -> Outer:
    """What rho consists of: a part for every term, and the family's."""
    box = family.psi_bounds()
    if family.has_dispersion:
        box[0] = DISPERSION_BOX
    return Outer(tuple(term.outer_part for term in terms), family_part(family, box))


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
    names = outer_of(terms, family).names
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
    if (dense or not family.row_weights) and size > DENSE_BORDER_LIMIT:
        kinds = {term.penalty.KIND_TAG for term in dense}
        if not family.row_weights:
            kinds.add(f"the {family.name} family")
        raise InputError(
            f"{', '.join(sorted(kinds))} needs a dense border of {size} decoder parameters, "
            f"the limit is {DENSE_BORDER_LIMIT}; use fewer columns or atoms"
        )
