"""The gauge of an SAE-manifold, integrated exactly (DESIGN A4).

A rotation of an atom's coordinates, undone by its decoder, leaves F as it is: theta moves along an
orbit with border tangent C_a = R_a B. The orbit is integrated exactly:

    int exp(-F) dtheta = vol(orbit group) |det C^T C| * int over the slice C^T (beta - b) = 0,

and the slice's determinant is that of H + w C C^T divided by w for each direction. It is exact for
any w where H is singular along the orbit, as the exact Hessian is at a mode.

A penalty that changes along an orbit breaks that symmetry; which ones a model keeps is found by
differentiating its penalties along them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
from scipy.linalg import expm

from reml_sae.manifolds import Manifold
from reml_sae.models.sae.mixture import Layout
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.typing import Array, Mask

Symmetry = tuple[int, int, Array]
"""Atom k, number of the generator among the atom's, and its matrix R (M_k, M_k)."""

TOLERANCE = 1e-9
LARGEST_TURN = 1.0
"""Radians."""
LEAST_ORBIT = 1e-12
"""Squared length that the orbit of a decoder has where it vanishes, so that V stays finite."""


def kept_symmetries(
    layout: Layout, terms: Sequence[PenaltyTerm], n_rows: int, n_outputs: int
) -> list[Symmetry]:
    """Continuous symmetries of the atoms that no penalty breaks."""
    rng = np.random.default_rng(0)
    return [
        (k, number, generator)
        for k, atom in enumerate(layout.atoms)
        for number, generator in enumerate(atom.gauge_generators())
        if not any(_breaks(term, layout, k, number, generator, n_rows, n_outputs, rng)
                   for term in terms)
    ]


def _breaks(
    term: PenaltyTerm, layout: Layout, k: int, number: int, generator: Array, n_rows: int,
    n_outputs: int, rng: np.random.Generator,
) -> bool:
    """Whether the term's penalty changes along a symmetry, at a random target."""
    if term.target not in ("coordinates", "decoder", "decoders"):
        return False
    if term.atom != k and term.target != "decoders":
        return False
    if term.target == "coordinates":
        target = rng.normal(size=(n_rows, layout.atoms[k].latent_dim))
        direction = layout.atoms[k].gauge_field(target)[number]
    else:
        where = layout.basis_slices[k]
        target = rng.normal(size=(layout.basis_slices[-1].stop, n_outputs))
        direction = np.zeros_like(target)
        direction[where] = generator @ target[where]
        if term.target == "decoder":
            target, direction = target[where], direction[where]
    rho = term.penalty.initial_rho() + 0.3 * rng.normal(size=term.penalty.rho_count())
    gradient = term.penalty.grad_target(target, rho)
    slope = abs(float(gradient @ direction.ravel()))
    return bool(slope > TOLERANCE * np.linalg.norm(gradient) * np.linalg.norm(direction))


def used_symmetries(symmetries: Iterable[Symmetry], used: Mask) -> list[Symmetry]:
    """Symmetries of the atoms whose coordinates some row has, by ``used`` (N, K).

    An atom without rows has no orbit.
    """
    return [item for item in symmetries if used[:, item[0]].any()]


def log_volume(atoms: Sequence[Manifold], symmetries: Iterable[Symmetry]) -> float:
    """Log volume of the group of the given symmetries."""
    kept: dict[int, list[int]] = {}
    for k, number, _ in symmetries:
        kept.setdefault(k, []).append(number)
    return sum(atoms[k].log_gauge_volume(numbers) for k, numbers in kept.items())


def move_atom(
    atom: Manifold, t: Array, b: Array, step_t: Array, step_b: Array
) -> tuple[Array, Array]:
    """Move the coordinates and the decoder of an atom along a step, its rotation along the orbit.

    Where a penalty breaks the gauge weakly, F is a narrow valley along the orbit, which a straight
    step leaves. So the part of the step along the orbit, read off the decoder by least squares, is
    taken as a finite rotation; to the first order the move is the step. A step that would turn the
    atom round, as where its decoder nearly vanishes, is taken straight.

    Parameters
    ----------
    atom : Manifold
    t, step_t : (N, d) coordinates and their step
    b, step_b : (M_k, p) decoder and its step

    Returns
    -------
    (N, d) and (M_k, p)
    """
    generators = atom.gauge_generators()
    tangents = (generators @ b).reshape(len(generators), b.size)
    if not step_b.any() or not tangents.any():
        return atom.retract(t, step_t), b + step_b
    c: Array = np.asarray(np.linalg.lstsq(tangents.T, step_b.ravel(), rcond=None)[0], float)
    if np.abs(c).max() > LARGEST_TURN:
        return atom.retract(t, step_t), b + step_b
    rest_t = step_t - np.tensordot(c, atom.gauge_field(t), 1)
    rest_b = step_b - (c @ tangents).reshape(b.shape)
    rotation = expm(np.tensordot(c, generators, 1))
    return atom.gauge_move(atom.retract(t, rest_t), c), rotation @ (b + rest_b)


def at_its_phase(covariance: Array, tangents: Array, pulled: Array) -> Array:
    """Covariance of a decoder for every output, given where it is on its orbit.

    A place on the orbit is a convention, not an unknown: the posterior is that of the decoders that
    are not turned against the fitted one.

    Parameters
    ----------
    covariance : (p, M_k, M_k) array
        Blocks of G, which has some volume along the orbit.
    tangents, pulled : (c, M_k, p) arrays
        C_a, and G C_a in the decoder of the atom.
    """
    if not len(tangents):
        return covariance
    along = np.tensordot(tangents, pulled, axes=([1, 2], [1, 2]))
    inverse = np.linalg.pinv(0.5 * (along + along.T), hermitian=True)
    taken: Array = np.einsum("cao,cd,dbo->oab", pulled, inverse, pulled, optimize=True)
    return covariance - taken


class Gauge:
    """The gauge at one state of the decoders.

    Parameters
    ----------
    layout : Layout
    symmetries : list of Symmetry
        Those of atoms that some row uses.
    beta : (M, p) array
    weight : float
        w > 0.
    """

    def __init__(self, layout: Layout, symmetries: list[Symmetry], beta: Array, weight: float):
        self.layout, self.symmetries, self.weight = layout, symmetries, weight
        self._shape = beta.shape
        self.places = [layout.basis_slices[k] for k, _, _ in symmetries]
        self.tangents = [generator @ beta[where] for (_, _, generator), where
                         in zip(symmetries, self.places, strict=True)]
        """C_a, (M_k, p), in the decoder of its atom."""

    def __len__(self) -> int:
        return len(self.symmetries)

    @cached_property
    def columns(self) -> Array:
        """C_a, (c, M, p)."""
        out = np.zeros((len(self), *self._shape))
        for column, where, tangent in zip(out, self.places, self.tangents, strict=True):
            column[where] = tangent
        return out

    def apply(self, v: Array) -> Array:
        """w C C^T v for v (M, p)."""
        out = np.zeros(self._shape)
        for where, tangent in zip(self.places, self.tangents, strict=True):
            out[where] += self.weight * float(np.vdot(tangent, v[where])) * tangent
        return out

    def of_atom(self, k: int) -> list[int]:
        """Which tangents are those of atom k."""
        return [a for a, (atom, _, _) in enumerate(self.symmetries) if atom == k]

    def half_trace(self, pulled: Sequence[Array]) -> tuple[Array, float]:
        """Gradient (M, p) in beta of half the trace of G w C C^T at fixed G, and the trace.

        ``pulled`` are G C_a (M_k, p) in the decoder of its atom.
        """
        total = sum(float(np.vdot(tangent, own))
                    for tangent, own in zip(self.tangents, pulled, strict=True))
        return self.weight * self._pull_back(pulled), self.weight * total

    def own(self, columns: Array) -> list[Array]:
        """Of columns (c, M, p), what each has in the decoder of its atom."""
        return [column[where] for column, where in zip(columns, self.places, strict=True)]

    def volume(self) -> tuple[float, Array]:
        """The gauge's part of V and its gradient in beta (M, p)."""
        value = -0.5 * len(self) * np.log(self.weight / (2.0 * np.pi))
        value -= log_volume(self.layout.atoms, self.symmetries)
        pulled: list[Array] = []
        # tangents of different atoms are orthogonal
        for _, group in groupby(range(len(self)), key=lambda a: self.symmetries[a][0]):
            own = np.stack([self.tangents[a] for a in group])
            flat = own.reshape(len(own), -1)
            gram = flat @ flat.T + LEAST_ORBIT * np.eye(len(own))
            value -= float(np.linalg.slogdet(gram)[1])
            pulled += list(np.tensordot(np.linalg.inv(gram), own, 1))
        return value, -2.0 * self._pull_back(pulled)

    def _pull_back(self, own: Sequence[Array]) -> Array:
        """Gradient (M, p) in beta of sum_a <W_a, C_a> for fixed W_a (M_k, p)."""
        out = np.zeros(self._shape)
        for where, (_, _, generator), part in zip(self.places, self.symmetries, own, strict=True):
            out[where] += generator.T @ part
        return out
