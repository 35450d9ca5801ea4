"""The prior of the decoders: value, derivatives and normaliser, with g of `scale`.

beta is (M, p).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from reml_sae.models.sae.bound import NOWHERE, Bound, log_partition
from reml_sae.models.sae.scale import Scale, scale_terms
from reml_sae.models.sae.structure import SAEStructure
from reml_sae.models.sae.terms import PenaltyTerm
from reml_sae.penalties import RowCurvature, RowInverse
from reml_sae.typing import Array, Curvature, Index


class PlacedScale(NamedTuple):
    """A term of g: of decoder k, whose rows of beta are ``where``.

    It makes up for the coordinates of the rows, or else for the volume of the decoder.
    """

    k: int
    where: slice
    scale: Scale
    of_rows: bool


def placed_scales(
    structure: SAEStructure, counts: Array, beta: Array, rho: Array, *, at_modes: bool
) -> list[PlacedScale]:
    """The terms of g of every decoder whose coordinates are those of independent rows.

    Parameters
    ----------
    structure : SAEStructure
    counts : (K,) array
        How many rows carry each atom.
    beta : (M, p) array
    rho : (n_rho,) array
    at_modes : bool
        As of `DecoderPrior`.
    """
    out, floor, p = [], structure.scale_floor(rho), beta.shape[1]
    for k, (atom, where) in enumerate(zip(structure.atoms, structure.layout.basis_slices,
                                          strict=True)):
        if not counts[k] or structure.always_carried[k]:
            continue
        # M is that of the manifold's prior, whose scale no strength moves
        columns = float(p) if structure.has_manifold_prior[k] else 0.0
        for term in scale_terms(atom):
            for weight, of_rows in ((term.by_rows * float(counts[k]) * at_modes, True),
                                    (term.by_columns * columns, False)):
                if weight:
                    scale = Scale(weight, term.C, beta[where], term.P, floor)
                    out.append(PlacedScale(k, where, scale, of_rows))
    return out


def with_scales(
    grams: Sequence[Array], scales: Sequence[PlacedScale],
    chosen: Callable[[PlacedScale], bool] = lambda own: True,
) -> list[Array]:
    """Gram matrices (M_k, M_k) of atoms with those of the terms of g that are chosen."""
    out = list(grams)
    for own in filter(chosen, scales):
        out[own.k] = out[own.k] + own.scale.gram
    return out


def volumes(grams: Sequence[Array], scales: Sequence[PlacedScale]) -> list[Array]:
    """V of `outside` (M_k, M_k): minus the curvature of what g has of the volume."""
    none = [np.zeros_like(gram) for gram in grams]
    return [-gram for gram in with_scales(none, scales, lambda own: not own.of_rows)]


class DecoderPrior:
    """The prior of the decoders at one state.

    Parameters
    ----------
    structure : SAEStructure
        The rows that carry an atom are those that its g counts.
    beta : (M, p) array
    rho : (n_rho,) array
    at_modes : bool
        Whether the coordinates of rows are at their modes, for whose bias g makes up. Where they
        have been integrated out, g has the volume of the decoders alone.
    """

    def __init__(self, structure: SAEStructure, beta: Array, rho: Array, *, at_modes: bool = True):
        self.structure, self.beta, self.rho = structure, beta, rho
        self.at_modes = at_modes
        self.grams = structure.decoder_gram(rho)
        self._bound = [self._bind(term) for term in structure.dense_terms]
        self.scales = placed_scales(structure, structure.active.sum(axis=0), beta, rho,
                                    at_modes=at_modes)
        self._parts: dict[Curvature, list[RowCurvature]] = {}

    def _bind(self, term: PenaltyTerm) -> Bound:
        slices = self.structure.layout.basis_slices
        where = slice(0, slices[-1].stop) if term.target == "decoders" else slices[term.atom]
        return Bound(term, self.beta[where], term.rho(self.rho), NOWHERE, NOWHERE, where)

    def scale_correction(self) -> tuple[float, Array, Array]:
        """The sum of g over atoms, its gradient in beta (M, p) and in rho (n_rho,)."""
        beta = np.zeros_like(self.beta)
        for own in self.scales:
            beta[own.where] += own.scale.gradient()
        return self._scale_value(), beta, self._scale_rho()

    def _scale_value(self) -> float:
        """The sum of g over atoms."""
        return sum(own.scale.value() for own in self.scales)

    def _scale_rho(self) -> Array:
        """Gradient of the sum of g in rho, (n_rho,)."""
        out = np.zeros(len(self.rho))
        if (phi := self.structure.outer.dispersion) is not None:
            out[phi] = sum(own.scale.value_rho() for own in self.scales)
        return out

    @cached_property
    def curvature_grams(self) -> list[Array]:
        """Parts of the border that are the same for every output, block by block."""
        return with_scales(self.grams, self.scales)

    @cached_property
    def damped_grams(self) -> list[Array]:
        """The same without what curves downwards: what a damped factor may add to."""
        return with_scales(self.grams, self.scales, lambda own: own.of_rows)

    @cached_property
    def volume_grams(self) -> list[Array]:
        """`volumes`, block by block."""
        return volumes(self.grams, self.scales)

    def add_scales(self, border: Array) -> None:
        """Add the exact curvature of g to a border (M p, M p)."""
        p = self.beta.shape[1]
        for own in self.scales:
            flat = slice(own.where.start * p, own.where.stop * p)
            border[flat, flat] += own.scale.dense()

    def _curvature(self, which: Curvature) -> list[RowCurvature]:
        """Curvatures of the penalties that are no quadratic form, computed once."""
        if which not in self._parts:
            self._parts[which] = [bound.curvature(which) for bound in self._bound]
        return self._parts[which]

    # --- value and derivatives -----------------------------------------------------------------

    def value(self) -> float:
        """Negative log density up to its partition, and g."""
        total = sum(bound.value() for bound in self._bound)
        total += 0.5 * float(np.vdot(self.beta, self.apply_grams(self.beta)))
        return total + self._scale_value()

    def gradient(self) -> Array:
        """Gradient in beta, (M, p)."""
        out = self.apply_grams(self.beta)
        for own in self.scales:
            out[own.where] += own.scale.gradient()
        for bound in self._bound:
            gradient = bound.penalty.grad_target(bound.target, bound.rho)
            out[bound.where] += gradient.reshape(bound.target.shape)
        return out

    def apply_grams(self, beta: Array) -> Array:
        """Quadratic priors of the decoders times (M, p)."""
        out = np.empty_like(beta)
        for where, prior in zip(self.structure.layout.blocks, self.grams, strict=True):
            out[where] = prior @ beta[where]
        return out

    def border(self, which: Curvature) -> Array:
        """Dense part of the border, (M p, M p), or of size 0 where there is none; without g."""
        if not self.structure.has_dense_border:
            return np.zeros((0, 0))
        out = np.zeros((self.beta.size, self.beta.size))
        for bound, parts in zip(self._bound, self._curvature(which), strict=True):
            index = self._border_index(bound)
            out[np.ix_(index, index)] += parts.to_dense()
        return out

    def _border_index(self, bound: Bound) -> Index:
        """Places in the flat beta of the entries of the penalty's matrix view, in its order."""
        flat = np.arange(self.beta.size, dtype=float).reshape(self.beta.shape)[bound.where]
        return bound.penalty.rows(flat).ravel().astype(np.intp)

    def hvp(self, v: Array) -> Array:
        """Exact Hessian times v (M, p)."""
        out = self.apply_grams(v)
        for own in self.scales:
            out[own.where] += own.scale.hvp(v[own.where])
        for bound, parts in zip(self._bound, self._curvature("exact"), strict=True):
            product = parts.matvec(bound.penalty.rows(v[bound.where]))
            out[bound.where] += bound.penalty.flat(product).reshape(bound.target.shape)
        return out

    def half_trace_gradients(
        self, which: Curvature, traces: Sequence[Array], border: Array
    ) -> tuple[Array, Array, float]:
        """Gradients of half the trace of G times the curvature of the priors at fixed G.

        Parameters
        ----------
        which : "majorizer" or "exact"
        traces : sequence of (M_k, M_k) arrays
            Border of G at every block of the layout, traced over outputs.
        border : (M p, M p) border of G; read where a dense part is

        Returns
        -------
        grad_beta (M, p), grad_rho (n_rho,), and the whole trace
        """
        grad_beta, grad_rho, trace = np.zeros_like(self.beta), np.zeros(len(self.rho)), 0.0
        for bound, parts in zip(self._bound, self._curvature(which), strict=True):
            index = self._border_index(bound)
            G = RowInverse.of_dense(border[np.ix_(index, index)], parts)
            arguments = (bound.target, bound.rho, G, which)
            pulled = bound.penalty.flat(bound.penalty.curvature_vjp(*arguments))
            grad_beta[bound.where] += 0.5 * pulled.reshape(bound.target.shape)
            grad_rho[bound.term.where] += 0.5 * bound.penalty.curvature_rho(*arguments)
            trace += G.inner(parts)
        for term, _, derivative in self._gram_derivatives():
            grad_rho[term.where] += 0.5 * np.einsum("jab,ab->j", derivative, traces[term.atom])
        for own, gram in zip(traces, self.grams, strict=True):
            trace += float(np.vdot(gram, own))
        return grad_beta, grad_rho, trace

    def scale_trace_gradients(
        self, which: Curvature, traces: Sequence[Array], border: Array
    ) -> tuple[Array, Array, float]:
        """The same three of G times the curvature of g.

        That is exact, whatever is asked for, where rows have been integrated out.
        """
        grad_beta, grad_rho, total = np.zeros_like(self.beta), np.zeros(len(self.rho)), 0.0
        p = self.beta.shape[1]
        for k, where, scale, _ in self.scales:
            if which == "majorizer" and self.at_modes:
                own = traces[k]
                total += float(np.vdot(scale.gram, own))
                grad_beta[where] += 0.5 * scale.gram_pull(own)
                along = float(np.vdot(scale.gram_rho(), own))
            else:
                flat = slice(where.start * p, where.stop * p)
                own = border[flat, flat]
                total += float(np.vdot(scale.dense(), own))
                grad_beta[where] += 0.5 * scale.dense_pull(own)
                along = scale.dense_rho(own)
            if (phi := self.structure.outer.dispersion) is not None:
                grad_rho[phi] += 0.5 * along
        return grad_beta, grad_rho, total

    def gram_gradients(
        self, priors: Mapping[int, Array], scales: Mapping[int, Array],
        volumes: Mapping[int, Array],
    ) -> tuple[Array, Array]:
        """Gradients in beta (M, p) and rho of <W_k, P_k>, <W_k, n P_> and <W_k, -V> of atoms k.

        Parameters
        ----------
        priors, scales, volumes : mapping of k to (M_k, M_k) arrays
            W of the priors, and of the curvatures of what g has of the rows and of the volume.
        """
        beta, rho = np.zeros_like(self.beta), np.zeros(len(self.rho))
        for term, _, derivative in self._gram_derivatives():
            if term.atom in priors:
                rho[term.where] += np.einsum("jab,ab->j", derivative, priors[term.atom])
        for k, where, scale, of_rows in self.scales:
            W = (scales if of_rows else volumes).get(k)
            if W is not None:
                beta[where] += scale.gram_pull(W)
                if (phi := self.structure.outer.dispersion) is not None:
                    rho[phi] += float(np.vdot(scale.gram_rho(), W))
        return beta, rho

    def _gram_derivatives(self) -> list[tuple[PenaltyTerm, slice, Array]]:
        """Every quadratic decoder term with its rows of beta and d gram / d rho."""
        own = self.structure.noise.decoder_precisions(len(self.structure.atoms))
        return [(term, self.structure.layout.basis_slices[term.atom],
                 own[term.atom] * term.penalty.gram_rho(term.rho(self.rho)))
                for term in self.structure.terms if term.is_quadratic_decoder]

    # --- outer parameters ----------------------------------------------------------------------

    def value_rho(self) -> Array:
        """Gradient of the value in rho at fixed beta, (n_rho,)."""
        out = self._scale_rho()
        for bound in self._bound:
            out[bound.term.where] += bound.penalty.grad_rho(bound.target, bound.rho)
        for term, where, derivative in self._gram_derivatives():
            b = self.beta[where]
            out[term.where] += 0.5 * np.einsum("jab,ab->j", derivative, b @ b.T)
        return out

    def gradient_rho_dot(self, u: Array) -> Array:
        """Inner products of u (M, p) with the mixed derivatives d gradient / d rho, (n_rho,)."""
        out = np.zeros(len(self.rho))
        for bound in self._bound:
            mixed = bound.penalty.grad_target_rho(bound.target, bound.rho)
            out[bound.term.where] += np.einsum(
                "jna,na->j", mixed, bound.penalty.rows(u[bound.where]))
        for own in self.scales:
            if (phi := self.structure.outer.dispersion) is not None:
                out[phi] += float(np.vdot(own.scale.gradient_rho(), u[own.where]))
        for term, where, derivative in self._gram_derivatives():
            out[term.where] += np.einsum("jab,ab->j", derivative, u[where] @ self.beta[where].T)
        return out

    def precision_gradient(
        self, traces: Sequence[Array], adjoint: Array, outside: Mapping[int, Array]
    ) -> tuple[Array, Array]:
        """Gradients (K,) of V in the logs of the precisions of curves and of centres.

        Those of curves are the ``decoder_precisions`` of the noise.

        Parameters
        ----------
        traces : sequence of (M_k, M_k) arrays
            Border of G at every block of the layout, traced over outputs.
        adjoint : (M, p) border of the adjoint of `criterion`
        outside : mapping of k to (M_k, M_k) arrays
            Derivatives of `outside` in the priors of atoms.
        """
        layout, p = self.structure.layout, self.structure.shape[1]
        centres, gaussians = self.structure.centre_precisions, self.structure.has_gaussian_decoder
        out = np.zeros((2, len(layout.blocks)))
        for k, (where, gram, trace, gaussian) in enumerate(zip(
                layout.blocks, self.grams, traces, [*gaussians, True], strict=False)):
            centre = np.zeros_like(gram)
            centre[0, 0] = gaussian * (centres[k] if k < len(centres) else gram[0, 0])
            whole = trace + 2.0 * outside[k] if k in outside else trace
            if gaussian:  # the normaliser, as log|gram| goes with its inverse
                whole = whole - p * np.linalg.inv(gram)
            B = self.beta[where]
            turned = (0.5 * B - adjoint[where]) @ B.T
            out[:, k] = [np.vdot(part, 0.5 * whole + turned) for part in (gram - centre, centre)]
        curves, constants = out
        if layout.has_intercept:
            constants = constants[:-1] + constants[-1] * centres / centres.sum()
        return curves[: len(centres)], constants

    def log_partition(self) -> tuple[float, Array]:
        """Log partition of the priors and its gradient in rho."""
        p = self.structure.shape[1]
        value, gradient = log_partition(self._bound, len(self.rho))
        for prior, gaussian in zip(self.grams, [*self.structure.has_gaussian_decoder, True],
                                   strict=False):
            if gaussian:
                value += 0.5 * p * (len(prior) * np.log(2.0 * np.pi) - np.linalg.slogdet(prior)[1])
        for term, _, derivative in self._gram_derivatives():
            inverse = np.linalg.inv(self.grams[term.atom])
            gradient[term.where] -= 0.5 * p * np.einsum("jab,ba->j", derivative, inverse)
        return float(value), gradient
