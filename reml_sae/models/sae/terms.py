"""Penalties bound to the part of the state that they act on.

What a penalty acts on (`Penalty.acts_on`) and the structure of its curvature decide where the
engine carries it:

    logits, coordinates, rows alone        the row blocks D_i
    gate logits                            the pattern of open gates, a function of rho alone
    coordinates, rows coupled by a graph   edges of D, sparse Cholesky
    coordinates, all rows coupled          low-rank columns, Woodbury
    decoder, the same for every output     the Gram matrix G of the Kronecker border
    decoder, anything else                 a dense part of the border
    outer                                  a hyperprior, added to the criterion

A kind that acts on something else is refused by name. On every target at most one penalty may be a
proper prior, since the normaliser of a product of priors is not known; quadratic penalties of one
decoder are the exception. A penalty without normaliser is a fixed potential: part of F, like the
likelihood, beside the prior that the target has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from reml_sae.assignments import Assignment, SoftmaxChart
from reml_sae.engine import Outer, OuterPart
from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold
from reml_sae.penalties import (
    CompositePenalty,
    DecoderQuadratic,
    DecoderRidgePenalty,
    MatrixPenalty,
    Penalty,
)
from reml_sae.typing import Array

Target = Literal["logits", "amplitudes", "gates", "coordinates", "decoder", "decoders", "outer"]


@dataclass(frozen=True)
class PenaltyTerm:
    """One penalty on one target.

    Attributes
    ----------
    penalty : Penalty
    target : "logits", "amplitudes", "gates", "coordinates", "decoder", "decoders" or "outer"
        "amplitudes" are logits outside the simplex, of open atoms alone; "gates" is the pattern of
        open atoms; "decoders" are all of them, stacked.
    atom : int
        The atom whose coordinates, logits or decoder are the target; -1 for all, or none.
    where : slice
        Where its outer parameters are in rho; set by the model (`placed`).
    """

    penalty: Any
    target: Target
    atom: int = -1
    where: slice = field(default_factory=lambda: slice(0), compare=False)

    def rho(self, rho: Array) -> Array:
        """The term's own part of rho."""
        return rho[self.where]

    @property
    def place(self) -> str:
        """The target's name with its atom."""
        return self.target if self.atom < 0 else f"{self.target}[{self.atom}]"

    @property
    def label(self) -> str:
        """Kind and place."""
        return f"{self.penalty.KIND_TAG}.{self.place}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the term's outer parameters."""
        return tuple(self.label + suffix for suffix in self.penalty.rho_labels())

    @property
    def outer_part(self) -> OuterPart:
        """The term's outer parameters."""
        return OuterPart(self.penalty.KIND_TAG, self.names, self.penalty.rho_bounds(),
                         np.full(self.penalty.rho_count(), self.penalty.is_quadratic),
                         self.target, self.atom)

    @property
    def on_rows(self) -> bool:
        """Whether the target has the rows of the data."""
        return self.target in ("logits", "amplitudes", "coordinates")

    @property
    def is_quadratic_decoder(self) -> bool:
        """Whether it is the same quadratic form for every output of a decoder."""
        return isinstance(self.penalty, DecoderQuadratic)

    @property
    def is_decoder_size(self) -> bool:
        """Whether its strength is the precision of a decoder's coefficients."""
        return isinstance(self.penalty, DecoderRidgePenalty)

    @property
    def couples_rows(self) -> bool:
        """Whether it couples the coordinates of different rows."""
        return self.target == "coordinates" and not self.penalty.ROW_BLOCK_DIAGONAL


def placed(terms: Sequence[PenaltyTerm], outer: Outer) -> tuple[PenaltyTerm, ...]:
    """Every term with its slice of rho; the parts of ``outer`` are theirs, in order."""
    return tuple(replace(term, where=own) for term, own in zip(terms, outer.slices, strict=True))


def bind_penalty(
    penalty: Penalty, atoms: Sequence[Manifold], n_outputs: int,
    assignment: Assignment | None = None,
) -> list[PenaltyTerm]:
    """Attach a penalty to every part of an SAE-manifold that it fits.

    Parameters
    ----------
    penalty : Penalty
    atoms : sequence of Manifold
    n_outputs : int
        Columns p of the data.
    assignment : Assignment, optional
        Softmax by default.

    Raises
    ------
    InputError
        Where the penalty fits nothing, or its curvature cannot be carried by this engine; the
        message begins with the field that is wrong, or with the kind.
    """
    if isinstance(penalty, CompositePenalty):
        return [term for part in penalty.parts
                for term in bind_penalty(part, atoms, n_outputs, assignment)]
    kind = penalty.KIND_TAG
    if penalty.is_learnable and not penalty.settled().weight:
        # 0 exp(rho) is 0 for every rho: V would be flat in it
        penalty = replace(penalty, learnable=False)
    if not penalty.is_smooth:
        raise InputError(
            f"{kind} with these parameters is not differentiable everywhere, so the engine cannot "
            "carry it; choose a smooth variant or remove it")
    if penalty.atom is not None and penalty.atom >= len(atoms):
        raise InputError(f"atom must be below n_atoms={len(atoms)}, got {penalty.atom} ({kind})")
    target = penalty.acts_on()
    if target == "outer":
        return [PenaltyTerm(penalty, "outer")]
    reason = (SoftmaxChart(len(atoms)) if assignment is None else assignment).objection(penalty)
    if target == "logits" and isinstance(penalty, MatrixPenalty) and penalty.ROW_BLOCK_DIAGONAL:
        if reason:
            raise InputError(reason)
        return _on_logits(penalty, atoms)
    if target == "gate logits" and isinstance(penalty, MatrixPenalty):
        if reason:
            raise InputError(reason)
        _check_width(penalty, atoms)
        return [PenaltyTerm(penalty, "gates")]
    if target == "coordinates" and isinstance(penalty, MatrixPenalty):
        return _on_coordinates(penalty, atoms)
    if target == "decoders" and isinstance(penalty, MatrixPenalty):
        return _on_all_decoders(penalty, atoms)
    if target == "decoder" and isinstance(penalty, DecoderQuadratic | MatrixPenalty):
        return _on_decoders(penalty, atoms, n_outputs)
    raise InputError(
        f"{kind} acts on {target}, which the SAE-manifold engine cannot carry; remove it "
        "from the list"
    )


def _check_width(penalty: MatrixPenalty, atoms: Sequence[Manifold]) -> None:
    if penalty.width() != len(atoms):
        raise InputError(
            f"k_atoms must equal n_atoms={len(atoms)}, got {penalty.width()} ({penalty.KIND_TAG})"
        )


def _on_logits(penalty: MatrixPenalty, atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
    _check_width(penalty, atoms)
    return [PenaltyTerm(penalty, "logits")] if len(atoms) > 1 else []


def _chosen(penalty: Penalty, atoms: Sequence[Manifold]) -> list[tuple[int, Manifold]]:
    return [(k, atom) for k, atom in enumerate(atoms) if penalty.atom in (None, k)]


def _on_coordinates(penalty: MatrixPenalty, atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
    # a penalty on R^d has no meaning on angles, which wrap
    terms = [PenaltyTerm(penalty, "coordinates", k) for k, atom in _chosen(penalty, atoms)
             if atom.is_euclidean and atom.latent_dim == penalty.width()]
    return _found(penalty, terms, f"a Euclidean atom of dimension {penalty.width()}")


def _on_decoders(
    penalty: DecoderQuadratic | MatrixPenalty, atoms: Sequence[Manifold], n_outputs: int
) -> list[PenaltyTerm]:
    if isinstance(penalty, DecoderQuadratic):
        size: int | None = penalty.basis_size
    elif penalty.by_output():
        size = penalty.width()
    else:
        size = None
        if penalty.width() not in (1, n_outputs):
            raise InputError(
                f"{penalty.KIND_TAG} is for decoders of {penalty.width()} columns but the data "
                f"have {n_outputs}")
    terms = [PenaltyTerm(penalty, "decoder", k) for k, atom in _chosen(penalty, atoms)
             if size in (None, atom.basis_size)]
    return _found(penalty, terms, f"an atom with a basis of size {size}")


def _on_all_decoders(penalty: MatrixPenalty, atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
    sizes = [atom.basis_size for atom in atoms]
    given = list(getattr(penalty, "block_sizes", [penalty.width()]))
    if given != sizes:
        raise InputError(f"block_sizes must equal the sizes {sizes} of the atoms' bases, got "
                         f"{given} ({penalty.KIND_TAG})")
    return [PenaltyTerm(penalty, "decoders")]


def _found(penalty: Penalty, terms: list[PenaltyTerm], need: str) -> list[PenaltyTerm]:
    if not terms:
        which = "the model has none" if penalty.atom is None else f"atom {penalty.atom} is not one"
        raise InputError(f"{penalty.KIND_TAG} needs {need}, and {which}")
    return terms


def check_rows(term: PenaltyTerm, n_rows: int) -> None:
    """Refuse a penalty that holds values for another number of rows.

    Raises
    ------
    InputError
        Naming the kind and both numbers.
    """
    expected = term.penalty.n_rows_expected() if term.on_rows else None
    if expected not in (None, n_rows):
        raise InputError(f"{term.penalty.KIND_TAG} holds values for {expected} rows but the data "
                         f"have {n_rows}")


def check_priors(terms: Sequence[PenaltyTerm]) -> None:
    """Every target has at most one proper prior, quadratic penalties of a decoder as one.

    Raises
    ------
    InputError
        Naming the kinds that share a target.
    """
    for place in {term.place for term in terms if term.target != "outer"}:
        here = [term for term in terms if term.place == place and term.penalty.is_normalised]
        priors = {"quadratic" if term.is_quadratic_decoder else id(term) for term in here}
        if len(priors) > 1:
            kinds = ", ".join(term.penalty.KIND_TAG for term in here)
            raise InputError(
                f"{kinds} act on the same {place}, and the normaliser of their product is not "
                "known; keep one"
            )
        if sum(term.is_decoder_size for term in here) > 1:
            raise InputError(f"several decoder_ridge act on the same {place}; keep one")
