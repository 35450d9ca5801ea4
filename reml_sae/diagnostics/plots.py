"""Figures of a fitted model; matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.diagnostics.noise import atom_names, noise_shapes
from reml_sae.errors import require
from reml_sae.families.noise import Diagonal, Factor, Noise
from reml_sae.linalg import single_threaded
from reml_sae.typing import Array

CURVE_POINTS = 200
MAX_POINTS = 4000


@single_threaded
def plot_atoms(model: Any, Z: Array, max_atoms: int = 12, figure: Any = None) -> Any:
    """Every atom in the plane of its own two main directions, with the rows that belong to it.

    A point is shown in the plane of its rows' main directions.

    Parameters
    ----------
    model : fitted SAEManifold
    Z : (N, p) array
        Rows to show, in the units of the fit.
    max_atoms : int
        The atoms with the largest shares are shown.
    figure : matplotlib Figure, optional
        Where to draw; it is sized to fit. By default a new one of pyplot, which keeps it until it
        is closed.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if figure is None:
        figure = require("matplotlib.pyplot", "plot", "plot_atoms").figure(layout="constrained")
    order = np.argsort([-atom.share for atom in model.atoms_], kind="stable")[:max_atoms]
    columns = min(4, len(order))
    lines = -(-len(order) // columns)
    figure.set_size_inches(3.4 * columns, 3.4 * lines)
    axes = figure.subplots(lines, columns, squeeze=False)
    codes = model.encode(Z)
    residual = None if model.assignment_.is_mixture else (
        np.asarray(Z, float) - model.reconstruct(codes))
    for axis, k in zip(axes.flat, order, strict=False):
        atom = model.atoms_[k]
        rows, own = _own_rows(Z, codes, k, atom, residual)
        centre, slopes = atom.coefficients[0], atom.coefficients[1:]
        plane = _plane(slopes if len(slopes) else own - centre)
        points = (own - centre) @ plane.T
        if atom.topology.latent_dim == 1:
            t = codes.coordinates[k][rows, 0]
            lowest, highest = ((-np.pi, np.pi) if atom.topology.relaxation == "ring"
                               else (t.min(initial=0.0), t.max(initial=0.0)))
            axis.scatter(*points.T, c=_colours(t, lowest, highest), s=6, linewidths=0)
            curve = atom.curve(np.linspace(lowest, highest, CURVE_POINTS))
            axis.plot(*((curve - centre) @ plane.T).T, "k-", lw=1.2)
        else:
            axis.scatter(*points.T, s=6, linewidths=0)
            drawn = atom.topology.basis(codes.coordinates[k][rows]) @ atom.coefficients
            axis.plot(*((drawn - centre) @ plane.T).T, "k.", ms=1.5)
        axis.set_title(f"atom {k}: {atom.topology.name}, {atom.share:.0%} of the rows",
                       fontsize="small")
        axis.set_aspect("equal", adjustable="datalim")
    for axis in list(axes.flat)[len(order):]:
        axis.set_visible(False)
    return figure


@single_threaded
def plot_noise(model: Any, figure: Any = None) -> Any:
    """Standard deviations of the noise: of the columns, or along its factors beside the floor.

    Parameters
    ----------
    model : fitted SAEManifold
        Of the Gaussian family.
    figure : matplotlib Figure, optional
        Where to draw, as in `plot_atoms`.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if figure is None:
        figure = require("matplotlib.pyplot", "plot", "plot_noise").figure(layout="constrained")
    figure.set_size_inches(6.8, 3.4)
    axis, noise = figure.subplots(), model.noise_
    for number, (atoms, shape) in enumerate(noise_shapes(noise, len(model.atoms_))):
        sd = float(np.sqrt(model.dispersion_) * np.exp(0.5 * noise.log_size(atoms[0])))
        if noise.n_metrics == 1:
            _draw_shape(axis, shape, sd, "", "C0", "k")
        else:
            colour = f"C{number + (number > 0)}"  # the second is that of the longest axis
            _draw_shape(axis, shape, sd, f"{atom_names(atoms)}: ", colour, colour)
    sizes = [np.sqrt((atom.coefficients[1:] ** 2).sum(axis=1).max(initial=0.0))
             for atom in model.atoms_]
    axis.axhline(max(sizes), color="C1", lw=0.8, label="longest axis of an atom")
    axis.set(yscale="log", ylabel="noise sd, units of the data", title=f"{noise.kind} noise",
             xlabel="largest first")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize="small")
    return figure


def _draw_shape(axis: Any, noise: Noise, sd: float, whose: str, colour: str, rest: str) -> None:
    """The standard deviations of a noise whose geometric mean is ``sd``."""
    if isinstance(noise, Diagonal):
        sds = np.sort(sd * np.exp(0.5 * noise.log_variances))[::-1]
        axis.plot(np.arange(1, len(sds) + 1), sds, ".-", color=colour, label=f"{whose}columns")
        axis.axhline(sd, color=rest, lw=0.8, ls=":", label=f"{whose}geometric mean")
        return
    if isinstance(noise, Factor):
        axis.plot(np.arange(1, noise.rank + 1), sd * np.sqrt(noise.floor * noise.ratios), "o-",
                  color=colour, label=f"{whose}factors")
        sd *= float(np.sqrt(noise.floor))
    axis.axhline(sd, color=rest, lw=0.8, ls=":", label=f"{whose}all other directions")


def _colours(t: Array, lowest: float, highest: float) -> Array:
    """Colours (n, 3) that go around from end to end, no part of them near white."""
    angle = 2.0 * np.pi * (t - lowest) / max(highest - lowest, np.finfo(float).tiny)
    thirds = 2.0 * np.pi * np.arange(3) / 3.0
    return np.array([1.0, 0.85, 1.0]) * (0.46 + 0.36 * np.cos(angle[:, None] - thirds))


def _own_rows(
    Z: Array, codes: Any, k: int, atom: Any, residual: Array | None
) -> tuple[NDArray[np.intp], Array]:
    """Rows (n,) of atom k, and what they look like (n, p) without the other atoms."""
    if residual is None:
        rows = np.flatnonzero(codes.assignments.argmax(axis=1) == k)[:MAX_POINTS]
        return rows, np.asarray(Z, float)[rows]
    rows = np.flatnonzero(codes.gates[:, k])[:MAX_POINTS]
    points = atom.topology.basis(codes.coordinates[k][rows]) @ atom.coefficients
    return rows, points + residual[rows] / codes.assignments[rows, k][:, None]


def _plane(vectors: Array) -> Array:
    """Two orthonormal main directions (2, p) of vectors (m, p)."""
    directions = np.linalg.svd(vectors, full_matrices=False)[2][:2]
    return np.pad(directions, ((0, 2 - len(directions)), (0, 0)))
