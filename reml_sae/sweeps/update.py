"""The M step of a sweep: decoders, strengths, noise and amplitudes from sums over rows.

The expected negative log joint density is quadratic in the decoder of every atom by itself. With
A = sum E[f f^T], R = sum E[f] x^T and the prior Lambda = e e^T + sum_j lambda_j S_j, with e the
constant and S_j what measures a curve's size and its roughness,

    B = (A / phi + Lambda)^-1 R / phi,    H = A / phi + Lambda on every output

Rows would take up but slowly what scale a curve lacks, as each has its own: so log amplitudes of
an atom have a mean m in the M step, and the curve has it afterwards, which an EM algorithm of more
parameters than are identified may do (Liu, Rubin and Wu 1998). With q what the prior has of the
curve, m is a Newton step on alpha sum (E[u] - m)^2 / 2 + exp(2 m) q / 2; m = 0 is stationary as the
objective is.

The precision alpha and these means hold each other: a low alpha lets the prior shorten curves, and
the amplitudes that make up for it keep alpha low, for dozens of sweeps. So a step takes the best of
all alphas, each with its means. A row that knows the share g of its log amplitude, g = 1 - alpha
var u, has E[u] / g about the mean of its atom with the variance 1 / alpha + var u / g, and on p
outputs of M functions a curve that is longer by m has m p (M - 1) less of the decoders' volume.

The objective of the sweeps is L plus the decoders' part of Laplace's method with the curvature that
known coordinates would give, which majorizes that of L. Strengths, noise, and the precision of
amplitudes where rows know hardly anything of theirs, take one step of Fellner and Schall (Wood and
Fasiolo 2017; MacKay 1992).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reml_sae.penalties.quadratic import LEAST_SIZE
from reml_sae.sweeps.rows import SweepSums
from reml_sae.sweeps.state import SweepState
from reml_sae.typing import Array

LONGEST = np.exp(2.0)
"""Factor by which a step may change a strength."""
FARTHEST = 0.5
"""Log of the factor by which a step may rescale a curve."""
STRENGTHS = np.exp(-12.0), np.array([LEAST_SIZE**-2, np.exp(18.0)])
"""Bounds of the strengths of size and roughness."""
AMPLITUDES = 1.0, np.exp(12.0)
"""Bounds of alpha: amplitudes that vary by more than a factor of e need too many nodes."""
PRECISIONS = np.geomspace(*AMPLITUDES, 400)
"""Alphas of which a step takes the best."""
KNOWN = 0.1
"""Share of their log amplitude that rows know, below which nodes round too much of it for that."""
LEAST_NOISE = 1e-8


def _priors(state: SweepState, number: int) -> Array:
    """Lambda (k, M, M)."""
    penalties = state.kinds[number].penalties
    constant = np.zeros(penalties.shape[1:])
    constant[0, 0] = 1.0
    return np.asarray(constant + np.tensordot(state.strengths[number], penalties, 1))


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
    state: SweepState, sums: SweepSums, precisions: tuple[float, float] = AMPLITUDES
) -> SweepState:
    """The state after an M step, with a precision of log amplitudes within bounds."""
    kinds = range(len(state.kinds))
    priors = [_priors(state, number) for number in kinds]
    inverses = [np.asarray(np.linalg.inv(gram / state.dispersion + prior), float)
                for gram, prior in zip(sums.grams, priors, strict=True)]
    solved = [np.asarray(inverse @ cross.transpose(0, 2, 1) / state.dispersion, float)
              for inverse, cross in zip(inverses, sums.crossed, strict=True)]
    energy, spent, p = sums.square, 0.0, sums.crossed[0].shape[1]
    for gram, cross, inverse, B in zip(sums.grams, sums.crossed, inverses, solved, strict=True):
        energy += float(np.vdot(gram, B @ B.transpose(0, 2, 1))) - 2.0 * float(
            np.einsum("kpm,kmp->", cross, B))
        spent += p * float(np.einsum("kml,klm->", inverse, gram)) / state.dispersion
    decoders, alpha = _rescaled(state, sums, solved, priors, inverses, precisions)
    size = sums.n_rows * p
    return replace(
        state, decoders=tuple(decoders), amplitude_precision=alpha,
        strengths=tuple(_strengths(state, number, priors[number], inverses[number],
                                   decoders[number]) for number in kinds),
        dispersion=max(energy / max(size - spent, 0.1 * size), LEAST_NOISE))


def _rescaled(
    state: SweepState, sums: SweepSums, decoders: list[Array], priors: list[Array],
    inverses: list[Array], bounds: tuple[float, float],
) -> tuple[list[Array], float]:
    """Decoders (k, M, p) that have the means of their rows' log amplitudes, and alpha."""
    q = np.concatenate([
        np.einsum("kmp,kml,klp->k", B[:, 1:], prior[:, 1:, 1:], B[:, 1:], optimize=True)
        for B, prior in zip(decoders, priors, strict=True)])
    volume = decoders[0].shape[2] * np.concatenate([
        prior.shape[1] - 1 - np.einsum("kml,klm->k", inverse[:, 1:, 1:], prior[:, 1:, 1:])
        for inverse, prior in zip(inverses, priors, strict=True)])
    before, scales = state.amplitude_precision, _Scales(
        np.concatenate(sums.counts()), np.concatenate(sums.shifts), q, volume)
    alpha = float(np.clip(np.clip(scales.precision(sums, before), before / LONGEST,
                                  before * LONGEST), *bounds))
    factors = np.split(np.exp(scales.means(np.array([alpha]))[0]),
                       np.cumsum([len(B) for B in decoders])[:-1])
    return [np.concatenate([B[:, :1], factor[:, None, None] * B[:, 1:]], axis=1)
            for B, factor in zip(decoders, factors, strict=True)], alpha


@dataclass(frozen=True, eq=False)
class _Scales:
    """What is known of the scales of the curves of all atoms.

    Attributes
    ----------
    counts : (K,) rows
    shift : (K,) sums of E[u]
    q : (K,) what the prior has of the curves
    volume : (K,) log volume that decoders lose, and V gains, for each unit of log scale
    """

    counts: Array
    shift: Array
    q: Array
    volume: Array

    def means(self, alphas: Array) -> Array:
        """Newton steps m (a, K) at every precision."""
        sharp = alphas[:, None] * self.counts + 2.0 * self.q
        # nothing is known of the scale of an atom that has lost all its rows
        known = np.where(sharp > 0.0, sharp, np.inf)
        return np.clip((alphas[:, None] * self.shift - self.q) / known, -FARTHEST, FARTHEST)

    def precision(self, sums: SweepSums, alpha: float) -> float:
        """The best precision after alpha."""
        n, (squares, expected) = sums.n_rows, sums.amplitude
        varied = (expected - squares) / n
        known = max(1.0 - alpha * varied, 1e-3)
        if known < KNOWN:
            means = self.means(np.array([alpha]))[0]
            left = squares + float(means @ (self.counts * means - 2.0 * self.shift))
            return known * n / max(left, 1e-12 * n)
        seen = replace(self, shift=self.shift / known)
        own = seen.shift / np.maximum(self.counts, 1e-300)
        within = max(squares / known**2 - float(seen.shift @ own), 0.0)
        sharp = 1.0 / (1.0 / PRECISIONS + varied / known)
        means = seen.means(sharp)
        cost = (sharp * (within + (own - means) ** 2 @ self.counts) - n * np.log(sharp)
                + np.exp(2.0 * means) @ self.q - 2.0 * means @ self.volume)
        return float(PRECISIONS[np.argmin(cost)])


def _strengths(
    state: SweepState, number: int, prior: Array, inverse: Array, B: Array
) -> Array:
    penalties, strength, p = state.kinds[number].penalties, state.strengths[number], B.shape[2]
    size = np.einsum("kmp,sml,klp->ks", B, penalties, B, optimize=True)
    known = np.einsum("kml,slm->ks", np.linalg.inv(prior) - inverse, penalties)
    ratio = p * np.maximum(known, 1e-300) / np.maximum(size, 1e-300)
    return np.asarray(np.clip(strength * np.clip(ratio, 1.0 / LONGEST, LONGEST), STRENGTHS[0],
                              STRENGTHS[1][: len(penalties)]))
