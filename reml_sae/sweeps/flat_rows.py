"""Rows of flats: their coordinates are Gaussian, and integrated in closed form.

With axes w_j that are orthogonal, y_j = w_j.(x - c) / phi, g_j = |w_j|^2 / phi and an amplitude a,
the coordinate t_j of a row has the posterior precision 1 + a^2 g_j and the mean a y_j / (1 + a^2
g_j), and the row the log evidence, up to what is its own and its atom's constant's,

    sum_j [ a^2 y_j^2 / (1 + a^2 g_j) - log(1 + a^2 g_j) ] / 2

which is summed over nodes of log amplitudes.
"""

from __future__ import annotations

import numpy as np

from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.posterior import RowPosterior
from reml_sae.sweeps.tables import FlatTables, SweepTables


def log_cloud(
    pull: DeviceArray, lengths: DeviceArray, a: float, axis: int, backend: Backend
) -> DeviceArray:
    """The log evidence at an amplitude, by sums along an axis."""
    sharp = 1.0 + (a * a) * lengths
    return 0.5 * backend.xp.sum((a * a) * pull**2 / sharp - backend.xp.log(sharp), axis=axis)


def coarse_cloud(
    pull: DeviceArray, lengths: DeviceArray, alpha: float, axis: int, backend: Backend
) -> DeviceArray:
    """The best at three amplitudes, two of them a standard deviation of their logarithm away."""
    xp, found = backend.xp, None
    for u in (-1.0, 0.0, 1.0):
        a = float(np.exp(u / np.sqrt(alpha)))
        value = log_cloud(pull, lengths, a, axis, backend) - 0.5 * u * u
        found = value if found is None else xp.maximum(found, value)
    return found


def cloud_evidence(
    pull: DeviceArray, lengths: DeviceArray, tables: SweepTables, backend: Backend
) -> DeviceArray:
    """The log evidence (n,) of rows (n, q), summed over amplitudes."""
    top, mass = _amplitudes(pull, lengths, tables, backend)
    return top + backend.xp.log(backend.xp.sum(mass, axis=1))


def flat_posterior(
    pull: DeviceArray, kind: FlatTables, place: DeviceArray, tables: SweepTables, backend: Backend
) -> RowPosterior:
    """Of rows (n, q) on the orthogonal axes of their flats, which are at these places (n,)."""
    xp, lengths = backend.xp, kind.lengths[place]
    top, mass = _amplitudes(pull, lengths, tables, backend)
    total = xp.sum(mass, axis=1)
    mass = mass / total[:, None]
    u, a = backend.array(tables.u), backend.array(np.exp(tables.u))
    # by amplitude: E[a t_j] = h y_j and the variance of a t_j is h
    h = a[:, None] ** 2 / (1.0 + a[:, None] ** 2 * lengths[:, None])
    first = xp.sum(mass[:, :, None] * h, axis=1)
    second = (mass[:, :, None] * h).swapaxes(1, 2) @ h
    second = second * pull[:, :, None] * pull[:, None]
    for j in range(pull.shape[1]):
        second[:, j, j] += first[:, j]
    first, amplitude = first * pull, mass @ a
    means = backend.numpy(first / amplitude[:, None])
    points = (kind.turns[backend.numpy(place)] @ means[:, :, None])[:, :, 0]
    return RowPosterior(top + xp.log(total), mass @ u, mass @ u**2, amplitude, first, second,
                        first, points)


def _amplitudes(
    pull: DeviceArray, lengths: DeviceArray, tables: SweepTables, backend: Backend
) -> tuple[DeviceArray, DeviceArray]:
    """The highest log density (n,) at a node of amplitudes, and densities (n, U) over it."""
    xp = backend.xp
    logs = xp.stack([
        log + log_cloud(pull, lengths, each, 1, backend)
        for each, log in zip(np.exp(tables.u).tolist(), tables.u_logs.tolist(), strict=True)], 1)
    top = xp.amax(logs, 1)
    return top, xp.exp(logs - top[:, None])
