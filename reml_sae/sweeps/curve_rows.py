"""Rows of curves: log evidence at nodes, and posterior mass on them."""

from __future__ import annotations

import numpy as np

from reml_sae.sweeps.backend import Backend, DeviceArray
from reml_sae.sweeps.posterior import RowPosterior
from reml_sae.sweeps.tables import KindTables, SweepTables


def log_gaussian(
    pull: DeviceArray, lengths: DeviceArray, alpha: float, backend: Backend
) -> DeviceArray:
    """Log of the integral of exp(a pull - a^2 length / 2) over a ~ N(1, 1 / alpha), a >= 0 nearly.

    ``pull`` is y_g.(x - c) over phi; ``lengths`` is |y_g|^2 over phi. With s = length + alpha it is
    (pull + alpha)_+^2 / 2 s - alpha / 2 - log(s / alpha) / 2, here without the difference of large
    numbers where alpha is large.
    """
    sharp = lengths + alpha
    pull = pull.clip(-alpha)
    return ((pull * (0.5 * pull + alpha) - (0.5 * alpha) * lengths) / sharp
            - 0.5 * backend.xp.log(sharp / alpha))


def coarse_curve(
    pull: DeviceArray, kind: KindTables, own: slice, tables: SweepTables, backend: Backend
) -> DeviceArray:
    """Log evidence (k, n) of some curves at their best coarse node, but for their constants.

    With q = pull / (2 s)^(1/2) and b = alpha (2 / s)^(1/2), `log_gaussian` is q (q + b) from
    -b / 2 on, but for what a row has no part in.
    """
    nodes, xp = kind.coarse, backend.xp
    sharp = (nodes.lengths[own] + tables.alpha)[:, :, None]
    scaled = nodes.curve * (tables.precision / (2.0 * sharp) ** 0.5)
    b = tables.alpha * (2.0 / sharp) ** 0.5
    q = scaled @ pull
    q = xp.maximum(q, -0.5 * b)
    gain = q * (q + b)
    gain += log_gaussian(xp.zeros_like(nodes.lengths[own]), nodes.lengths[own], tables.alpha,
                         backend)[:, :, None] + nodes.logs[:, None]
    return xp.amax(gain, 1)


def curve_posterior(
    pull: DeviceArray, kind: KindTables, place: DeviceArray, tables: SweepTables, backend: Backend
) -> RowPosterior:
    """Of rows (n, G) at the nodes of their curves, which are at these places (n,)."""
    xp, nodes = backend.xp, kind.fine
    R, u, u2, top = _node_mass(pull, nodes.lengths[place], nodes.logs, tables, backend)
    total = xp.sum(R[0], axis=1)
    first, second = R[1] / total[:, None], R[2] / total[:, None]
    return RowPosterior(
        top + xp.log(total), u / total, u2 / total, xp.sum(first, axis=1), first, second,
        first @ nodes.curve, nodes.points[backend.numpy(xp.argmax(R[0], axis=1))])


def _node_mass(
    pull: DeviceArray, lengths: DeviceArray, logs: DeviceArray, tables: SweepTables,
    backend: Backend,
) -> tuple[list[DeviceArray], DeviceArray, DeviceArray, DeviceArray]:
    """Posterior mass on the nodes (n, G) times 1, a and a^2, up to exp(top).

    With the sums over nodes and amplitudes of u and of u^2, and the highest log density top (n,).
    """
    xp = backend.xp
    a = np.exp(tables.u)
    top = xp.amax(xp.stack([
        xp.amax(logs + log + each * (pull - (0.5 * each) * lengths), 1)
        for each, log in zip(a.tolist(), tables.u_logs.tolist(), strict=True)]), 0)
    level = logs - top[:, None]
    total = [xp.zeros_like(pull) for _ in range(3)]
    first, second = xp.zeros_like(top), xp.zeros_like(top)
    for each, u, log in zip(a.tolist(), tables.u.tolist(), tables.u_logs.tolist(), strict=True):
        mass = xp.exp(level + (each * pull - (0.5 * each * each) * lengths + log))
        for power in range(3):
            total[power] += mass * each**power
        own = xp.sum(mass, axis=1)
        first += u * own
        second += u * u * own
    return total, first, second, top
