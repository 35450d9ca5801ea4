"""The predictor eta_i = b_0 + sum_k a_ik Phi_k(t_ik) B_k of one batch of rows, and its derivatives.

Written in *full* local parameters x = (z_1 .. z_K, t_1 .. t_K), with the logits before the chart.
With y_k = Phi_k(t_k) B_k the point of atom k (under hard gates without its constant, which a row
has whole), and J = d a_k / d z_l of the assignment,

    d eta / dz_l      = sum_k J_kl y_k
    d eta / dt_kd     = a_k  dy_k/dt_d

and every other quantity is a contraction of the same two lines; what is special to an assignment
is in its `Amplitudes`. ``eta`` is linear in the features phi (N, M), the concatenation of a_k Phi_k
and, where the model has an intercept, a one.

The points are kept in coordinates of the decoders' row span (DESIGN A3), r <= min(p, M) wide.
A row does not carry the coordinate of an atom that it does not use (DESIGN A7): there the basis
is replaced by its mean under the coordinate prior, and all its derivatives are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments._base import Amplitudes
from reml_sae.linalg import Incidence
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array


class Layout:
    """Where each atom sits in the coordinates (width D) and in the basis (width M).

    Parameters
    ----------
    atoms : sequence of Manifold
    has_intercept : bool
        Whether the last row of the decoders is an intercept.
    """

    def __init__(self, atoms: Sequence[Manifold], has_intercept: bool = False):
        self.atoms = tuple(atoms)
        self.has_intercept = has_intercept
        dims = [atom.latent_dim for atom in self.atoms]
        sizes = [atom.basis_size for atom in self.atoms]
        self.coordinate_slices = _slices(dims)
        self.basis_slices = _slices(sizes)
        self.blocks = _slices([*sizes, 1]) if has_intercept else self.basis_slices
        """Rows of every decoder, and of the intercept."""
        self.n_coordinates = sum(dims)
        self.basis_size = sum(sizes) + has_intercept
        self.coordinate_atom = np.repeat(np.arange(len(self.atoms)), dims)
        """(D,) the atom of every coordinate."""


def _slices(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *widths])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


class Mixture:
    """Linearisation of the predictor at amplitudes and coordinates.

    Parameters
    ----------
    layout : Layout
    amplitudes : Amplitudes
    coordinates : (N, D)
    active : (N, K) bool, which coordinates a row carries
    coefficients : (M, r) decoders in span coordinates, B Q; (N, M, r) where rows have other ones
    order : int
        Highest derivative of the basis that will be asked for.
    centres : (N, K) bool, optional
        Rows that have an atom's constant whole, not times the amplitude.
    """

    def __init__(
        self,
        layout: Layout,
        amplitudes: Amplitudes,
        coordinates: Array,
        active: NDArray[np.bool_],
        coefficients: Array,
        order: int = 2,
        centres: NDArray[np.bool_] | None = None,
    ):
        self.layout, self.amplitudes, self.a = layout, amplitudes, amplitudes.a
        self._centres = centres
        self.n, self.n_atoms = self.a.shape
        self._coefficients = coefficients
        self.basis_jets = [
            _masked_jets(atom, coordinates[:, where], active[:, k], order)
            for k, (atom, where) in enumerate(
                zip(layout.atoms, layout.coordinate_slices, strict=True))]
        if centres is not None:
            for jets in self.basis_jets:
                jets[0][:, 0] = 0.0

    @cached_property
    def point_jets(self) -> list[list[Array]]:
        """The points of every atom, (N, r), and their derivatives (N, d, .., r)."""
        return [[_points(jet, self._coefficients[..., where, :]) for jet in jets]
                for where, jets in zip(self.layout.basis_slices, self.basis_jets, strict=True)]

    @cached_property
    def points(self) -> Array:
        """y, (N, K, r)."""
        return np.stack([jets[0] for jets in self.point_jets], axis=1)

    @cached_property
    def point_slopes(self) -> Array:
        """dy, (N, D, r)."""
        return np.concatenate([jets[1] for jets in self.point_jets], axis=1)

    def _feature_blocks(self, blocks: list[Array], intercept: float) -> Array:
        """Columns of all atoms side by side, with the constant one of the intercept."""
        if self.layout.has_intercept:
            blocks = [*blocks, np.full((self.n, 1), intercept)]
        return np.concatenate(blocks, axis=1)

    def _own(self, k: int) -> slice:
        """Columns of x that hold the coordinates of atom k."""
        where = self.layout.coordinate_slices[k]
        return slice(self.n_atoms + where.start, self.n_atoms + where.stop)

    # --- first order -------------------------------------------------------------------------

    def features(self) -> Array:
        """Features phi, (N, M)."""
        blocks = [self.a[:, [k]] * jets[0] for k, jets in enumerate(self.basis_jets)]
        if self._centres is not None:
            for k, block in enumerate(blocks):
                block[:, 0] = self._centres[:, k]
        return self._feature_blocks(blocks, 1.0)

    def jacobian(self) -> Array:
        """d eta / dx in span coordinates, (N, K + D, r)."""
        return self.gradient(self.points, self.point_slopes)

    def gradient(self, s: Array, ds: Array) -> Array:
        """Gradient (N, K + D, ...) in x of sum_k a_k s_k(t_k), s (N, K, ...), ds (N, D, ...)."""
        owner = self.a[:, self.layout.coordinate_atom]
        scaled = owner.reshape(owner.shape + (1,) * (ds.ndim - 2)) * ds
        return np.concatenate([self.amplitudes.pull(s), scaled], axis=1)

    def feature_gradient(self, weights: Array) -> Array:
        """Gradient (N, K + D) in x of sum_m w_m phi_m, for fixed weights (N, M)."""
        own = [weights[:, where] for where in self.layout.basis_slices]
        s = [np.einsum("nm,nm->n", w, jets[0])
             for w, jets in zip(own, self.basis_jets, strict=True)]
        ds = [np.einsum("nm,ndm->nd", w, jets[1])
              for w, jets in zip(own, self.basis_jets, strict=True)]
        return self.gradient(np.stack(s, axis=1), np.concatenate(ds, axis=1))

    def feature_slopes(self, k: int, axes: Sequence[int]) -> Array:
        """Derivatives of the features of atom k in some of its coordinates, (N, d, M_k)."""
        return np.asarray(self.a[:, [k], None] * self.basis_jets[k][1][:, axes], float)

    def feature_slope_pullback(self, k: int, axes: Sequence[int], weights: Array) -> Array:
        """Gradient (N, K + D) in x of their inner product with fixed weights (N, d, M_k)."""
        _, slopes, bends = self.basis_jets[k][:3]
        s, ds = np.zeros_like(self.a), np.zeros((self.n, self.layout.n_coordinates))
        s[:, k] = (weights * slopes[:, axes]).sum((1, 2))
        ds[:, self.layout.coordinate_slices[k]] = np.einsum(
            "ndm,ndem->ne", weights, bends[:, axes])
        return self.gradient(s, ds)

    def _contract(self, weights: Array, order: int) -> Array:
        """Derivative of order 0 or 1 of s_lk = sum_{m in k} w_lm Phi_m for w (N, L, M).

        Returns (N, L, K) for order 0 and (N, L, D) for order 1.
        """
        blocks = []
        for where, jets in zip(self.layout.basis_slices, self.basis_jets, strict=True):
            jet = jets[order] if order else jets[0][:, None, :]
            blocks.append(weights[:, :, where] @ jet.transpose(0, 2, 1))
        return np.concatenate(blocks, axis=2)

    def feature_direction(self, v: Array) -> Array:
        """Directional derivative (N, M) of phi along v (N, K + D) in x."""
        moved = self.amplitudes.push(v[:, : self.n_atoms])
        blocks = []
        for k, jets in enumerate(self.basis_jets):
            along = np.einsum("nd,ndm->nm", v[:, self._own(k)], jets[1])
            blocks.append(moved[:, [k]] * jets[0] + self.a[:, [k]] * along)
        return self._feature_blocks(blocks, 0.0)

    def coefficient_pullback(self, t: Array, incidence: Incidence) -> Array:
        """Gradient (.., M, c) in B of sum_i <T_i, d eta_i / dx> for fixed T (N, K + D, c)."""
        pushed = self.amplitudes.push(t[:, : self.n_atoms])
        out = np.zeros((*incidence.shape, self.layout.basis_size, t.shape[2]))
        for k, jets in enumerate(self.basis_jets):
            slopes = self.a[:, [k], None] * t[:, self._own(k)]
            block = incidence.sums(jets[0], pushed[:, k])
            for d in range(slopes.shape[1]):
                block += incidence.sums(jets[1][:, d], slopes[:, d])
            out[..., self.layout.basis_slices[k], :] = block
        return out

    # --- second order ------------------------------------------------------------------------

    def residual_hessian(self, residual: Array) -> Array:
        """R_ab = r . d2 eta / dx_a dx_b, (N, K + D, K + D), r (N, r) in span coordinates."""
        s, ds = self._dot(residual)
        k_atoms, owner = self.n_atoms, self.layout.coordinate_atom
        width = k_atoms + self.layout.n_coordinates
        out = np.zeros((self.n, width, width))
        out[:, :k_atoms, :k_atoms] = self.amplitudes.hessian(s)
        mixed = self.amplitudes.jacobian()[:, owner] * ds[:, :, None]
        out[:, k_atoms:, :k_atoms] = mixed
        out[:, :k_atoms, k_atoms:] = mixed.transpose(0, 2, 1)
        for k, jets in enumerate(self.point_jets):
            where = self._own(k)
            out[:, where, where] = (
                self.a[:, [k], None] * np.einsum("ndec,nc->nde", jets[2], residual))
        return out

    def _dot(self, vector: Array) -> tuple[Array, Array]:
        s = np.einsum("nkc,nc->nk", self.points, vector)
        ds = np.einsum("ndc,nc->nd", self.point_slopes, vector)
        return s, ds

    def jacobian_pullback(self, t: Array) -> Array:
        """Gradient (N, K + D) in x of <T_i, d eta_i / dx> for fixed T (N, K + D, r)."""
        tz, tt = t[:, : self.n_atoms], t[:, self.n_atoms:]
        pushed = self.amplitudes.push(tz)[:, self.layout.coordinate_atom]
        curved = [np.einsum("ndc,ndec->ne", t[:, self._own(k)], jets[2])
                  for k, jets in enumerate(self.point_jets)]
        return self._first_order_pullback(
            tz @ self.points.transpose(0, 2, 1), (pushed * self.point_slopes).sum(2),
            (tt * self.point_slopes).sum(2), np.concatenate(curved, axis=1))

    def feature_jacobian_pullback(self, w: Array) -> Array:
        """Gradient (N, K + D) in x of sum_am w_am d phi_m / dx_a, fixed w (N, K + D, M)."""
        owner = self.layout.coordinate_atom
        pushed = self._contract(self.amplitudes.push(w[:, : self.n_atoms]), 1)
        slopes, curved = [], []
        for k, jets in enumerate(self.basis_jets):
            wk = w[:, self._own(k), self.layout.basis_slices[k]]
            slopes.append(np.einsum("ndm,ndm->nd", wk, jets[1]))
            curved.append(np.einsum("ndm,ndem->ne", wk, jets[2]))
        return self._first_order_pullback(
            self._contract(w[:, : self.n_atoms], 0), pushed[:, owner, np.arange(owner.size)],
            np.concatenate(slopes, 1), np.concatenate(curved, 1))

    def _first_order_pullback(self, c: Array, pushed: Array, g: Array, dg: Array) -> Array:
        """Gradient in x of f = sum_lk J_kl c_lk(t_k) + sum_kd a_k g_kd(t_k).

        f is <T, d eta / dx> with c_lk = T_l . y_k and g_kd = T_kd . dy_kd at fixed T; ``pushed``
        (N, D) is the derivative of its first sum in the coordinates, dg that of sum_d g_kd.
        """
        grad_z = self.amplitudes.pull_jacobian(c) + self.amplitudes.pull(self._sum_by_atom(g))
        return np.concatenate(
            [grad_z, pushed + self.a[:, self.layout.coordinate_atom] * dg], axis=1)

    def _sum_by_atom(self, values: Array) -> Array:
        out = np.zeros_like(self.a)
        for k, where in enumerate(self.layout.coordinate_slices):
            out[:, k] = values[:, where].sum(1)
        return out

    def feature_hessian_contraction(self, weights: Array) -> Array:
        """Sum over ab of W_ab d2 phi_m / dx_a dx_b for symmetric W (N, K + D, K + D): (N, M)."""
        curve = self.amplitudes.contract_hessian(weights[:, : self.n_atoms, : self.n_atoms])
        lever = 2.0 * self._lever(weights)
        blocks = []
        for k, jets in enumerate(self.basis_jets):
            own = self._own(k)
            block = curve[:, [k]] * jets[0]
            block += np.einsum("nd,ndm->nm", lever[:, self.layout.coordinate_slices[k]], jets[1])
            block += self.a[:, [k]] * np.einsum("nde,ndem->nm", weights[:, own, own], jets[2])
            blocks.append(block)
        return self._feature_blocks(blocks, 0.0)

    def _lever(self, weights: Array) -> Array:
        """Sum over l of J_kl W_l,kd, (N, D)."""
        owner = self.layout.coordinate_atom
        pushed = self.amplitudes.push(weights[:, : self.n_atoms, self.n_atoms:])
        return pushed[:, owner, np.arange(owner.size)]

    # --- third order -------------------------------------------------------------------------

    def residual_hessian_pullback(self, residual: Array, weights: Array) -> Array:
        """Gradient (N, K + D) in x of sum_ab W_ab r . d2 eta_ab at fixed r and symmetric W.

        With s_k = r . y_k and A_klm = d2 a_k / dz_l dz_m the summand is
        sum_klm W_lm A_klm s_k + 2 sum_l,kd W_l,kd J_kl ds_kd + sum_k a_k sum_de W_kd,ke d2s_kde.
        """
        k_atoms, owner = self.n_atoms, self.layout.coordinate_atom
        s, ds = self._dot(residual)
        wzz, wzt = weights[:, :k_atoms, :k_atoms], weights[:, :k_atoms, k_atoms:]
        lever = 2.0 * self._lever(weights)
        grad_t = self.amplitudes.contract_hessian(wzz)[:, owner] * ds
        bend = np.zeros_like(self.a)
        for k, jets in enumerate(self.point_jets):
            where, own = self.layout.coordinate_slices[k], self._own(k)
            wk = weights[:, own, own]
            d2s = np.einsum("ndec,nc->nde", jets[2], residual)
            d3s = np.einsum("ndefc,nc->ndef", jets[3], residual)
            bend[:, k] = np.einsum("nde,nde->n", wk, d2s)
            grad_t[:, where] += np.einsum("nd,nde->ne", lever[:, where], d2s)
            grad_t[:, where] += self.a[:, [k]] * np.einsum("nde,ndef->nf", wk, d3s)
        mixed = np.zeros((self.n, k_atoms, k_atoms))
        for k, where in enumerate(self.layout.coordinate_slices):
            mixed[:, :, k] = 2.0 * np.einsum("nld,nd->nl", wzt[:, :, where], ds[:, where])
        grad_z = self.amplitudes.pull_hessian(s, wzz) + self.amplitudes.pull_jacobian(mixed)
        return np.concatenate([grad_z + self.amplitudes.pull(bend), grad_t], axis=1)


def _points(jet: Array, b: Array) -> Array:
    """A jet (N, .., M) of the basis times the decoder (M, r), or every row's own (N, M, r)."""
    if b.ndim == 2:
        return jet @ b
    flat = jet.reshape(len(jet), prod(jet.shape[1:-1]), jet.shape[-1]) @ b
    return flat.reshape(*jet.shape[:-1], b.shape[2])


def _masked_jets(atom: Manifold, t: Array, active: NDArray[np.bool_], order: int) -> list[Array]:
    if active.all():
        return list(atom.jet(t, order))
    n, d, m = len(t), atom.latent_dim, atom.basis_size
    jets = [np.zeros((n,) + (d,) * i + (m,)) for i in range(order + 1)]
    jets[0][:] = atom.prior_mean_basis()
    if not active.any():
        return jets
    for jet, carried in zip(jets, atom.jet(t[active], order), strict=True):
        jet[active] = carried
    return jets
