"""The M step of a sweep: decoders, strengths, noise and amplitudes from sums over rows.

The expected negative log joint density is quadratic in the decoder of every atom by itself. With
A = sum E[f f^T], R = sum E[f] x^T and the prior Lambda = I + lambda S

    B = (A / phi + Lambda)^-1 R / phi,    H = A / phi + Lambda on every output

Rows would take up but slowly what scale a curve lacks, as each has its own: so log amplitudes of
an atom have a mean m in the M step, and the curve has it afterwards, which an EM algorithm of more
parameters than are identified may do (Liu, Rubin and Wu 1998). With q what the prior has of the
curve, m is a Newton step on alpha sum (E[u] - m)^2 / 2 + exp(2 m) q / 2; m = 0 is stationary as the
objective is.

The objective of the sweeps is L plus the decoders' part of Laplace's method with the curvature that
known coordinates would give, which majorizes that of L. Strengths, noise and the precision of
amplitudes take one step of Fellner and Schall (Wood and Fasiolo 2017; MacKay 1992).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reml_sae.sweeps.rows import SweepSums
from reml_sae.sweeps.state import SweepState
from reml_sae.typing import Array

LONGEST = np.exp(2.0)
"""Factor by which a step may change a strength."""
FARTHEST = 0.5
"""Log of the factor by which a step may rescale a curve."""
STRENGTHS = np.exp(-12.0), np.exp(18.0)
AMPLITUDES = 1.0, np.exp(12.0)
"""Bounds of alpha: amplitudes that vary by more than a factor of e need too many nodes."""
LEAST_NOISE = 1e-8


def _priors(state: SweepState, number: int) -> Array:
    """Lambda (k, M, M)."""
    S = state.kinds[number].roughness
    return np.asarray(np.eye(len(S)) + state.strengths[number][:, None, None] * S)


def objective(state: SweepState, sums: SweepSums) -> float:
    """L and the decoders' volume, at the state that the sums are of."""
    return sums.value + sum(float(decoder_costs(state, sums, number).sum())
                            for number in range(len(state.kinds)))


def decoder_costs(state: SweepState, sums: SweepSums, number: int) -> Array:
    """Nats (k,) of the prior and of the volume of the decoders of a kind."""
    B, prior = state.decoders[number], _priors(state, number)
    H = sums.grams[number] / state.dispersion + prior
    return np.asarray(
        0.5 * np.einsum("kmp,kml,klp->k", B, prior, B, optimize=True)
        + 0.5 * B.shape[2] * (np.linalg.slogdet(H)[1] - np.linalg.slogdet(prior)[1]))


def gradient(state: SweepState, sums: SweepSums) -> list[Array]:
    """Gradient (k, M, p) of the sum of l_i in the decoders, by kind."""
    return [(gram @ B - cross.transpose(0, 2, 1)) / state.dispersion
            for gram, cross, B in zip(sums.grams, sums.crossed, state.decoders, strict=True)]


def updated(
    state: SweepState, sums: SweepSums, least_precision: float = AMPLITUDES[0]
) -> SweepState:
    """The state after an M step, with amplitudes of at least this precision."""
    decoders, strengths = [], []
    phi, energy, spent, moved = state.dispersion, sums.square, 0.0, 0.0
    for number, (gram, cross) in enumerate(zip(sums.grams, sums.crossed, strict=True)):
        prior, p = _priors(state, number), cross.shape[1]
        counts, shift = gram[:, 0, 0], sums.shifts[number]
        inverse = np.asarray(np.linalg.inv(gram / phi + prior), float)
        B = np.asarray(inverse @ cross.transpose(0, 2, 1) / phi, float)
        energy += float(np.vdot(gram, B @ B.transpose(0, 2, 1))) - 2.0 * float(
            np.einsum("kpm,kmp->", cross, B))
        spent += p * float(np.einsum("kml,klm->", inverse, gram)) / phi
        B, mean = _rescaled(state, B, prior, counts, shift)
        moved += float((mean * (counts * mean - 2.0 * shift)).sum())
        decoders.append(B)
        strengths.append(_strengths(state, number, prior, inverse, B))
    squares, expected = sums.amplitude
    varied, squares = expected - squares, squares + moved
    alpha = max(sums.n_rows - state.amplitude_precision * varied, 1e-3 * sums.n_rows) / max(
        squares, 1e-12 * sums.n_rows)
    alpha = np.clip(alpha, state.amplitude_precision / LONGEST,
                    state.amplitude_precision * LONGEST)
    size = sums.n_rows * sums.crossed[0].shape[1]
    return replace(
        state, decoders=tuple(decoders), strengths=tuple(strengths),
        dispersion=max(energy / max(size - spent, 0.1 * size), LEAST_NOISE),
        amplitude_precision=float(np.clip(alpha, least_precision, AMPLITUDES[1])))


def _rescaled(
    state: SweepState, B: Array, prior: Array, counts: Array, shift: Array
) -> tuple[Array, Array]:
    """Decoders (k, M, p) that have the means m (k,) of their rows' log amplitudes, and these."""
    curve = B[:, 1:]
    q = np.einsum("kmp,kml,klp->k", curve, prior[:, 1:, 1:], curve, optimize=True)
    alpha = state.amplitude_precision
    sharp = alpha * counts + 2.0 * q
    # nothing is known of the scale of an atom that has lost all its rows
    mean = np.where(sharp > 0.0, (alpha * shift - q) / np.where(sharp > 0.0, sharp, 1.0), 0.0)
    mean = np.clip(mean, -FARTHEST, FARTHEST)
    return np.concatenate([B[:, :1], np.exp(mean)[:, None, None] * curve], axis=1), mean


def _strengths(
    state: SweepState, number: int, prior: Array, inverse: Array, B: Array
) -> Array:
    S, strength, p = state.kinds[number].roughness, state.strengths[number], B.shape[2]
    if not S.any():
        return strength
    rough = np.einsum("kmp,ml,klp->k", B, S, B, optimize=True)
    known = np.einsum("kml,lm->k", np.linalg.inv(prior) - inverse, S)
    ratio = p * np.maximum(known, 1e-300) / np.maximum(rough, 1e-300)
    return np.asarray(np.clip(strength * np.clip(ratio, 1.0 / LONGEST, LONGEST), *STRENGTHS))
