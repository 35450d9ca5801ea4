"""The predictor eta_i = sum_k a_ik Phi_k(t_ik) B_k of one batch of rows, and its derivatives.

Written in *full* local parameters x = (z_1 .. z_K, t_1 .. t_K), with the logits before the chart.
With y_k = Phi_k(t_k) B_k the point of atom k and ybar = sum_k a_k y_k,

    d eta / dz_l      = a_l (y_l - ybar) / tau
    d eta / dt_ka     = a_k  dy_k/dt_a

and every other quantity is a contraction of the same two lines. ``eta`` is linear in the scaled
basis phi (N, M), the concatenation of a_k Phi_k, so that eta = phi B.

The points are kept in coordinates of the decoders' row span (DESIGN A3), r <= min(p, M) wide.
A row does not carry the coordinate of an atom that it does not use (DESIGN A7): there the basis
is replaced by its mean under the coordinate prior, and all its derivatives are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reml_sae.manifolds import Manifold

Array = NDArray[np.float64]


class Layout:
    """Where each atom sits in the coordinates (width D) and in the basis (width M).

    Parameters
    ----------
    atoms : sequence of Manifold
    """

    def __init__(self, atoms: Sequence[Manifold]):
        self.atoms = tuple(atoms)
        dims = [atom.latent_dim for atom in self.atoms]
        sizes = [atom.basis_size for atom in self.atoms]
        self.coordinate_slices = _slices(dims)
        self.basis_slices = _slices(sizes)
        self.n_coordinates = sum(dims)
        self.basis_size = sum(sizes)
        self.coordinate_atom = np.repeat(np.arange(len(self.atoms)), dims)
        """(D,) the atom of every coordinate."""
        self.basis_atom = np.repeat(np.arange(len(self.atoms)), sizes)
        """(M,) the atom of every basis function."""


def _slices(widths: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *widths])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


class Mixture:
    """Linearisation of the predictor at assignments ``a`` and coordinates ``t``.

    Parameters
    ----------
    layout : Layout
    a : (N, K) assignments
    coordinates : (N, D)
    active : (N, K) bool, which coordinates a row carries
    coefficients : (M, r) decoders in span coordinates, B Q
    temperature : float
    order : int
        Highest derivative of the basis that will be asked for.
    """

    def __init__(
        self,
        layout: Layout,
        a: Array,
        coordinates: Array,
        active: NDArray[np.bool_],
        coefficients: Array,
        temperature: float,
        order: int = 2,
    ):
        self.layout, self.a, self.temperature = layout, a, temperature
        self.coefficients = coefficients
        self.basis_jets = []
        self.point_jets = []
        for k, atom in enumerate(layout.atoms):
            jets = _masked_jets(atom, coordinates[:, layout.coordinate_slices[k]], active[:, k],
                                order)
            b = coefficients[layout.basis_slices[k]]
            self.basis_jets.append(jets)
            self.point_jets.append([jet @ b for jet in jets])
        self.points = np.stack([jets[0] for jets in self.point_jets], axis=1)
        """y, (N, K, r)."""
        self.point_slopes = np.concatenate([jets[1] for jets in self.point_jets], axis=1)
        """dy, (N, D, r)."""

    # --- first order -------------------------------------------------------------------------

    def features(self) -> Array:
        """Scaled basis phi, (N, M)."""
        blocks = [self.a[:, [k]] * jets[0] for k, jets in enumerate(self.basis_jets)]
        return np.concatenate(blocks, axis=1)

    def jacobian(self) -> Array:
        """d eta / dx in span coordinates, (N, K + D, r)."""
        return self.gradient(self.points, self.point_slopes)

    def gradient(self, s: Array, ds: Array) -> Array:
        """Gradient (N, K + D, ...) in x of sum_k a_k s_k(t_k), s (N, K, ...), ds (N, D, ...)."""
        a = self.a.reshape(self.a.shape + (1,) * (s.ndim - 2))
        mean = (a * s).sum(1, keepdims=True)
        owner = a[:, self.layout.coordinate_atom]
        return np.concatenate([a * (s - mean) / self.temperature, owner * ds], axis=1)

    def feature_gradient(self, weights: Array) -> Array:
        """Gradient (N, K + D) in x of sum_m w_m phi_m, for fixed weights (N, M)."""
        return self.gradient(self.contract_basis(weights, 0)[:, :, 0],
                             self.contract_basis(weights, 1)[:, :, 0])

    def contract_basis(self, weights: Array, order: int) -> Array:
        """Derivative of order 0 or 1 of s_k = sum_{m in k} w_m Phi_m w (N, M) or (N, M, c).

        Returns (N, K, c) for order 0 and (N, D, c) for order 1.
        """
        w = weights[:, :, None] if weights.ndim == 2 else weights
        blocks = []
        for k, jets in enumerate(self.basis_jets):
            wk = w[:, self.layout.basis_slices[k]]
            jet = jets[order] if order else jets[0][:, None, :]
            blocks.append(jet @ wk)
        return np.concatenate(blocks, axis=1)

    def feature_direction(self, v: Array) -> Array:
        """Directional derivative (N, M) of phi along v (N, K + D) in x."""
        k_atoms = self.a.shape[1]
        vz, vt = v[:, :k_atoms], v[:, k_atoms:]
        adot = self.a * (vz - (self.a * vz).sum(1, keepdims=True)) / self.temperature
        blocks = []
        for k, jets in enumerate(self.basis_jets):
            along = np.einsum("nd,ndm->nm", vt[:, self.layout.coordinate_slices[k]], jets[1])
            blocks.append(adot[:, [k]] * jets[0] + self.a[:, [k]] * along)
        return np.concatenate(blocks, axis=1)

    def coefficient_pullback(self, t: Array) -> Array:
        """Gradient (M, c) in B of sum_i <T_i, d eta_i / dx> for fixed T (N, K + D, c)."""
        k_atoms = self.a.shape[1]
        tz, tt = t[:, :k_atoms], t[:, k_atoms:]
        mean = np.einsum("nk,nkc->nc", self.a, tz)
        out = np.empty((self.layout.basis_size, t.shape[2]))
        for k, jets in enumerate(self.basis_jets):
            ak = self.a[:, [k]]
            block = jets[0].T @ (ak * (tz[:, k] - mean)) / self.temperature
            slopes = ak[:, :, None] * tt[:, self.layout.coordinate_slices[k]]
            block += np.tensordot(jets[1], slopes, axes=([0, 1], [0, 1]))
            out[self.layout.basis_slices[k]] = block
        return out

    # --- second order ------------------------------------------------------------------------

    def residual_hessian(self, residual: Array) -> Array:
        """R_ab = r . d2 eta / dx_a dx_b, (N, K + D, K + D), r (N, r) in span coordinates."""
        s, ds = self._dot(residual)
        n, k_atoms = self.a.shape
        a, tau, owner = self.a, self.temperature, self.layout.coordinate_atom
        out = np.zeros((n, k_atoms + ds.shape[1], k_atoms + ds.shape[1]))
        centred = s - (a * s).sum(1, keepdims=True)
        pair = -a[:, :, None] * a[:, None, :] * (centred[:, :, None] + centred[:, None, :])
        pair += (a * centred)[:, :, None] * np.eye(k_atoms)
        out[:, :k_atoms, :k_atoms] = pair / tau**2
        mixed = (np.eye(k_atoms)[:, owner] - a[:, :, None]) * (a[:, owner] * ds)[:, None, :] / tau
        out[:, :k_atoms, k_atoms:] = mixed
        out[:, k_atoms:, :k_atoms] = mixed.transpose(0, 2, 1)
        for k, jets in enumerate(self.point_jets):
            where = slice(k_atoms + self.layout.coordinate_slices[k].start,
                          k_atoms + self.layout.coordinate_slices[k].stop)
            out[:, where, where] = a[:, [k], None] * np.einsum("ndec,nc->nde", jets[2], residual)
        return out

    def _dot(self, vector: Array) -> tuple[Array, Array]:
        s = np.einsum("nkc,nc->nk", self.points, vector)
        ds = np.einsum("ndc,nc->nd", self.point_slopes, vector)
        return s, ds

    def jacobian_pullback(self, t: Array) -> Array:
        """Gradient (N, K + D) in x of <T_i, d eta_i / dx> for fixed T (N, K + D, r)."""
        k_atoms = self.a.shape[1]
        tz, tt = t[:, :k_atoms], t[:, k_atoms:]
        c = tz @ self.points.transpose(0, 2, 1)
        dc = tz @ self.point_slopes.transpose(0, 2, 1)
        curved = [
            np.einsum("ndc,ndec->ne", tt[:, self.layout.coordinate_slices[k]], jets[2])
            for k, jets in enumerate(self.point_jets)
        ]
        return self.first_order_pullback(
            c, dc, self._sum_by_atom((tt * self.point_slopes).sum(2)),
            np.concatenate(curved, axis=1),
        )

    def feature_jacobian_pullback(self, w: Array) -> Array:
        """Gradient (N, K + D) in x of sum_am w_am d phi_m / dx_a, fixed w (N, K + D, M)."""
        k_atoms = self.a.shape[1]
        columns = w[:, :k_atoms].transpose(0, 2, 1)
        c = self.contract_basis(columns, 0).transpose(0, 2, 1)
        dc = self.contract_basis(columns, 1).transpose(0, 2, 1)
        slopes, curved = [], []
        for k, jets in enumerate(self.basis_jets):
            rows = slice(k_atoms + self.layout.coordinate_slices[k].start,
                         k_atoms + self.layout.coordinate_slices[k].stop)
            wk = w[:, rows, self.layout.basis_slices[k]]
            slopes.append(np.einsum("ndm,ndm->nd", wk, jets[1]))
            curved.append(np.einsum("ndm,ndem->ne", wk, jets[2]))
        return self.first_order_pullback(
            c, dc, self._sum_by_atom(np.concatenate(slopes, 1)), np.concatenate(curved, 1)
        )

    def first_order_pullback(self, c: Array, dc: Array, g: Array, dg: Array) -> Array:
        """Gradient in x of f = (1/tau) [sum_l a_l c_ll - sum_lk a_l a_k c_lk] + sum_k a_k g_k.

        f is <T, d eta/dx> with c_lk = T_l . y_k and g_k = sum_a T_ka . dy_ka at fixed T;
        dc (N, K, D) and dg (N, D) are their derivatives in the coordinates.
        """
        a, tau, owner = self.a, self.temperature, self.layout.coordinate_atom
        diagonal = np.einsum("nkk->nk", c)
        row_sum = np.einsum("nlk,nk->nl", c, a)
        column_sum = np.einsum("nlk,nl->nk", c, a)
        h = (diagonal - row_sum - column_sum) / tau + g
        grad_z = a * (h - (a * h).sum(1, keepdims=True)) / tau
        own = dc[:, owner, np.arange(owner.size)]
        mean = np.einsum("nl,nld->nd", a, dc)
        grad_t = a[:, owner] * ((own - mean) / tau + dg)
        return np.concatenate([grad_z, grad_t], axis=1)

    def _sum_by_atom(self, values: Array) -> Array:
        out = np.zeros_like(self.a)
        for k, where in enumerate(self.layout.coordinate_slices):
            out[:, k] = values[:, where].sum(1)
        return out

    def feature_hessian_contraction(self, weights: Array) -> Array:
        """Sum over ab of W_ab d2 phi_m / dx_a dx_b for symmetric W (N, K + D, K + D): (N, M)."""
        a, tau = self.a, self.temperature
        k_atoms = a.shape[1]
        wzz, wzt = weights[:, :k_atoms, :k_atoms], weights[:, :k_atoms, k_atoms:]
        diagonal = np.einsum("nkk->nk", wzz)
        wa = np.einsum("nlm,nm->nl", wzz, a)
        common = 2.0 * (a * wa).sum(1, keepdims=True) - (diagonal * a).sum(1, keepdims=True)
        curve = a * (diagonal - 2.0 * wa + common) / tau**2
        mean = np.einsum("nl,nld->nd", a, wzt)
        blocks = []
        for k, jets in enumerate(self.basis_jets):
            where = self.layout.coordinate_slices[k]
            rows = slice(k_atoms + where.start, k_atoms + where.stop)
            lever = (2.0 / tau) * a[:, [k]] * (wzt[:, k, where] - mean[:, where])
            block = curve[:, [k]] * jets[0] + np.einsum("nd,ndm->nm", lever, jets[1])
            block += a[:, [k]] * np.einsum("nde,ndem->nm", weights[:, rows, rows], jets[2])
            blocks.append(block)
        return np.concatenate(blocks, axis=1)

    # --- third order -------------------------------------------------------------------------

    def residual_hessian_pullback(self, residual: Array, weights: Array) -> Array:
        """Gradient (N, K + D) in x of sum_ab W_ab r . d2 eta_ab at fixed r and symmetric W.

        With s_k = r . y_k the summand is
        (1/tau^2) [sum_l W_ll a_l (s_l - sbar) - sum_lm W_lm a_l a_m (s_l + s_m - 2 sbar)]
        + (2/tau) sum_{l,ka} W_l,ka a_k (delta_kl - a_l) ds_ka + sum_k a_k sum_ab W_ka,kb d2s_kab.
        """
        a, tau, owner = self.a, self.temperature, self.layout.coordinate_atom
        k_atoms = a.shape[1]
        s, ds = self._dot(residual)
        mean = (a * s).sum(1, keepdims=True)
        wzz, wzt = weights[:, :k_atoms, :k_atoms], weights[:, :k_atoms, k_atoms:]
        diagonal = np.einsum("nkk->nk", wzz)
        wa = np.einsum("nlm,nm->nl", wzz, a)
        # u = sum_l W_ll a_l - 2 a^T W a multiplies -sbar; d/da and d/ds of the first bracket
        u = (diagonal * a).sum(1, keepdims=True) - 2.0 * (a * wa).sum(1, keepdims=True)
        wsa = np.einsum("nlm,nm->nl", wzz, a * s)
        h = (diagonal * s - mean * (diagonal - 4.0 * wa) - u * s - 2.0 * s * wa - 2.0 * wsa)
        h /= tau**2
        grad_s = (diagonal * a - u * a - 2.0 * a * wa) / tau**2
        # mixed bracket: (2/tau) sum_d (W_{k(d),d} - sum_l a_l W_ld) a_k(d) ds_d
        own = wzt[:, owner, np.arange(owner.size)]
        lever = own - np.einsum("nl,nld->nd", a, wzt)
        h += (2.0 / tau) * self._sum_by_atom(lever * ds)
        h -= (2.0 / tau) * np.einsum("nld,nd->nl", wzt, a[:, owner] * ds)
        grad_ds = (2.0 / tau) * lever * a[:, owner]
        grad_t = grad_s[:, owner] * ds
        for k, jets in enumerate(self.point_jets):
            where = self.layout.coordinate_slices[k]
            rows = slice(k_atoms + where.start, k_atoms + where.stop)
            wk = weights[:, rows, rows]
            d2s = np.einsum("ndec,nc->nde", jets[2], residual)
            d3s = np.einsum("ndefc,nc->ndef", jets[3], residual)
            h[:, k] += np.einsum("nde,nde->n", wk, d2s)
            grad_t[:, where] += np.einsum("nd,nde->ne", grad_ds[:, where], d2s)
            grad_t[:, where] += a[:, [k]] * np.einsum("nde,ndef->nf", wk, d3s)
        grad_z = a * (h - (a * h).sum(1, keepdims=True)) / tau
        return np.concatenate([grad_z, grad_t], axis=1)


def _masked_jets(atom: Manifold, t: Array, active: NDArray[np.bool_], order: int) -> list[Array]:
    jets = list(atom.jet(t, order))
    if not active.all():
        jets[0] = np.where(active[:, None], jets[0], atom.prior_mean_basis())
        for i in range(1, order + 1):
            jets[i] = jets[i] * active.reshape((-1,) + (1,) * (jets[i].ndim - 1))
    return jets
