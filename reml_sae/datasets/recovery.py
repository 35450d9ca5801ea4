"""How much of a plant a fit recovers: atoms, supports and coordinates.

Codes are anything with ``assignments`` (N, K'), ``coordinates`` (a list of K' arrays) and ``gates``
(N, K'), as the estimators return; the number K' of fitted atoms may differ from the planted K.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from reml_sae.datasets import _alignment as align
from reml_sae.datasets.planted import Planted
from reml_sae.errors import InputError
from reml_sae.typing import Array

_FLAT = ("linear", "plane", "euclidean", "duchon")

# planted shape: the fitted topologies whose coordinates it may be compared with, and the error
_ERRORS: dict[str, tuple[tuple[str, ...], Callable[[Array, Array], float]]] = {
    "circle": (("circle",), align.circle_error),
    "ellipse": (("circle",), align.circle_error),
    "interval": (("interval", *_FLAT), align.interval_error),
    "linear": (_FLAT, align.flat_error),
    "plane": (_FLAT, align.flat_error),
    "torus": (("torus",), align.torus_error),
    "donut": (("torus",), align.torus_error),
    "cylinder": (("cylinder",), align.cylinder_error),
    "sphere": (("sphere",), align.sphere_error),
    "mobius": (("mobius",), align.mobius_error),
    "projective_plane": (("projective_plane",), align.projective_error),
    "curved_sheet": (_FLAT, align.flat_error),
}


class CodesLike(Protocol):
    """What is needed of fitted codes."""

    @property
    def assignments(self) -> Array:
        """Weights (N, K')."""

    @property
    def coordinates(self) -> list[Array]:
        """K' arrays (N, d)."""

    @property
    def gates(self) -> NDArray[np.bool_]:
        """Which atoms a row uses, (N, K')."""


@dataclass(frozen=True)
class RecoveryScores:
    """What a fit recovers of a plant.

    Attributes
    ----------
    matching : (K,) int array
        The fitted atom that stands for each planted one; -1 where there is none.
    assignment_accuracy : float
        One atom a row: share of rows whose strongest fitted atom stands for the planted one.
        Several: mean over rows of the Jaccard index of the fitted and planted sets of atoms.
    overlap : (K,) array
        Jaccard index of the rows of each planted atom and of its fitted one.
    coordinate_error : (K,) array
        Root mean square error per coordinate after the best gauge change, on the rows that use the
        atom in both (`reml_sae.datasets._alignment`): radians of angles and arcs, standard
        deviations of positions, lengths of an interval. NaN where there is nothing to compare.
    mismatched : tuple of str
        Planted atoms that were matched with an atom of another topology.
    """

    matching: NDArray[np.intp]
    assignment_accuracy: float
    overlap: Array
    coordinate_error: Array
    mismatched: tuple[str, ...]


def recovery_scores(
    planted: Planted, codes: CodesLike, topologies: Sequence[object] | None = None
) -> RecoveryScores:
    """Match fitted with planted atoms and score what was found.

    Atoms are matched by the overlap of their rows (Hungarian method). The rows of a fitted atom are
    those that assign more than half to it where each row has one planted atom, and those whose
    gate is open otherwise.

    Parameters
    ----------
    planted : Planted
    codes : Codes
        Of the rows of ``planted``.
    topologies : sequence of K' names or Manifold objects, or None
        Of the fitted atoms; None takes each to be what it is matched with.

    Raises
    ------
    InputError
        Where the codes are of other rows, or the topologies of another number of atoms.
    """
    n, n_fitted = codes.assignments.shape
    if n != len(planted.Z):
        raise InputError(f"codes have {n} rows, the plant {len(planted.Z)}; encode planted.Z")
    if topologies is not None and len(topologies) != n_fitted:
        raise InputError(f"{len(topologies)} topologies for {n_fitted} fitted atoms")
    one = bool((planted.support.sum(axis=1) == 1).all())
    found = codes.assignments > 0.5 if one else np.asarray(codes.gates, bool)
    strongest = codes.assignments.argmax(axis=1)
    matching, overlap = _match(planted, found, strongest)
    stands = np.where(matching[:, None] >= 0, found[:, matching].T, False)
    if one:
        accuracy = float((matching[planted.labels] == strongest).mean())
    else:
        both = (stands.T & planted.support).sum(axis=1)
        either = found.sum(axis=1) + planted.support.sum(axis=1) - both
        accuracy = float((both / either).mean())
    errors, mismatched = np.full(len(matching), np.nan), []
    for k, j in enumerate(matching):
        if j < 0:
            continue
        allowed, error = _ERRORS[planted.topologies[k]]
        fitted = planted.topologies[k] if topologies is None else _name(topologies[j])
        true, t = planted.coordinates[k], codes.coordinates[j]
        if t.shape[1] != true.shape[1] or (topologies is not None and fitted not in allowed):
            mismatched.append(f"atom {k}: planted {planted.topologies[k]}, fitted {fitted}")
            continue
        rows = stands[k] & planted.support[:, k]
        if rows.sum() > true.shape[1] + 1:
            errors[k] = error(t[rows], true[rows])
    return RecoveryScores(matching, accuracy, overlap, errors, tuple(mismatched))


def _match(
    planted: Planted, found: NDArray[np.bool_], strongest: NDArray[np.intp]
) -> tuple[NDArray[np.intp], Array]:
    """Fitted atom of each planted one and the Jaccard index of their rows."""
    shared = planted.support.T.astype(float) @ found
    union = planted.support.sum(axis=0)[:, None] + found.sum(axis=0) - shared
    jaccard = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    # supports that are all equal say nothing: then the strongest atoms decide
    agree = np.zeros_like(shared)
    np.add.at(agree, (planted.labels, strongest), 1.0 / len(found))
    ours, theirs = linear_sum_assignment(-(jaccard + 1e-6 * agree))
    matching = np.full(len(shared), -1)
    matching[ours] = theirs
    overlap = np.zeros(len(shared))
    overlap[ours] = jaccard[ours, theirs]
    return matching, overlap


def _name(topology: object) -> str:
    return str(getattr(topology, "name", topology))
