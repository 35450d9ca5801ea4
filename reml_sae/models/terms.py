"""Penalties bound to the part of the state that they act on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reml_sae.errors import InputError
from reml_sae.manifolds import Manifold

Array = NDArray[np.float64]
Target = Literal["logits", "coordinates", "decoder"]


@dataclass(frozen=True)
class PenaltyTerm:
    """One penalty on one target.

    Attributes
    ----------
    penalty : Penalty
    target : "logits", "coordinates" or "decoder"
    atom : int
        The atom whose coordinates or decoder are the target; -1 for the logits.
    start : int
        Index of the first of its log strengths in rho; set by the model.
    """

    penalty: Any
    target: Target
    atom: int = -1
    start: int = 0

    def rho(self, rho: Array) -> Array:
        """The term's own part of rho."""
        return rho[self.where]

    @property
    def where(self) -> slice:
        """The term's slice of rho."""
        return slice(self.start, self.start + self.penalty.rho_count())

    @property
    def place(self) -> str:
        """The target's name with its atom."""
        return self.target if self.atom < 0 else f"{self.target}[{self.atom}]"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the term's log strengths."""
        base = f"{self.penalty.KIND_TAG}.{self.place}"
        count = self.penalty.rho_count()
        return (base,) if count == 1 else tuple(f"{base}.{j}" for j in range(count))


def number_terms(terms: Sequence[PenaltyTerm]) -> tuple[PenaltyTerm, ...]:
    """Give every term its slice of rho, in order."""
    numbered, start = [], 0
    for term in terms:
        numbered.append(replace(term, start=start))
        start += term.penalty.rho_count()
    return tuple(numbered)


def bind_penalty(penalty: Any, atoms: Sequence[Manifold]) -> list[PenaltyTerm]:
    """Attach a penalty to every part of an SAE-manifold that it fits.

    Raises
    ------
    InputError
        Where the penalty fits nothing, or its curvature cannot be carried by this engine.
    """
    kind = penalty.KIND_TAG
    if kind == "softmax_assignment_sparsity":
        if penalty.k_atoms != len(atoms):
            raise InputError(
                f"penalties: {kind} has k_atoms={penalty.k_atoms} but the model has "
                f"n_atoms={len(atoms)}; make them equal"
            )
        return [PenaltyTerm(penalty, "logits")] if len(atoms) > 1 else []
    if kind == "ard":
        terms = [
            PenaltyTerm(penalty, "coordinates", k)
            for k, atom in enumerate(atoms)
            if atom.prior_precision > 0 and atom.latent_dim == penalty.latent_dim
        ]
        need = f"a Euclidean atom of dimension {penalty.latent_dim}"
    elif getattr(penalty, "is_quadratic", False):
        size = penalty.basis_size
        terms = [
            PenaltyTerm(penalty, "decoder", k)
            for k, atom in enumerate(atoms)
            if atom.basis_size == size
        ]
        need = f"an atom with a basis of size {size}"
    else:
        raise InputError(
            f"penalties: kind {kind!r} cannot be carried by the softmax SAE-manifold engine; "
            "remove it from the list"
        )
    if not terms:
        raise InputError(f"penalties: {kind} needs {need}, and the model has none")
    return terms
