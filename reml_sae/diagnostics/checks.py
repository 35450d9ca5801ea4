"""Named checks of a fit: pass, warn or fail, each with its figure.

Explained variance is not an identifiability check: a constant coordinate can explain a good deal.
So every atom is also asked how many rows use it, how much of its manifold they cover, and whether
its tangent stays away from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.diagnostics.certificate import laplace_certificate
from reml_sae.diagnostics.check import Check, Status
from reml_sae.diagnostics.noise import NoiseAccount, extreme_check, undescribed_check
from reml_sae.diagnostics.places import (
    check_places,
    drawn_nats,
    left_out,
    place_nats,
    rows_are_gaussian,
)
from reml_sae.diagnostics.report import write_checks
from reml_sae.diagnostics.stated import check_coordinates, check_labels, rows_have_one_atom
from reml_sae.engine import FitResult, REMLTrace, Theta, criterion_at
from reml_sae.errors import InputError, NotPositiveDefiniteError
from reml_sae.families import Family
from reml_sae.linalg import single_threaded
from reml_sae.manifolds import Manifold
from reml_sae.models import SAEManifoldModel
from reml_sae.rows import spread_index
from reml_sae.typing import Array

EMPTY_ROWS = 2
LOW_COVERAGE, LOWEST_COVERAGE = 0.5, 0.1
LOW_TANGENT, LOWEST_TANGENT = 0.05, 0.005
HIGH_COSINE = 0.98
COVERAGE_BINS, COVERAGE_BINS_SURFACE, BULK = 12, 48, 1.2
"""Cells of a curve and of a surface; the bulk is within so many nats of the prior's mode."""
CERTIFIED_ROWS, LARGE_ERROR = 200, 0.25
"""Rows whose Laplace approximation is checked; the mean error, in nats, that is warned of."""
DRAWN_AT_ONCE = 2000
"""Rows of which draws are taken at once: few at a time are slow."""
EXACT_ENTRIES, EXACT_BORDER = 4_000_000, 512
"""Entries of the dense coupling, and decoder parameters, up to which the exact curvature's V is
reported: beyond them it would take longer than the fit."""


@dataclass(frozen=True)
class Diagnostics:
    """Checks and figures of a fit.

    Attributes
    ----------
    checks : tuple of Check
    figures : dict
        Criterion under both curvatures, explained variance, gauge directions and the like.
    trace : REMLTrace
    noise : NoiseAccount or None
        Of a Gaussian fit.
    """

    checks: tuple[Check, ...]
    figures: dict[str, float | int | str]
    trace: REMLTrace = field(repr=False)
    noise: NoiseAccount | None = None

    def __repr__(self) -> str:
        names = {status: [check.name for check in self.checks if check.status == status]
                 for status in ("fail", "warn")}
        said = "".join(f", {status}: {'; '.join(found)}" for status, found in names.items()
                       if found)
        passed = len(self.checks) - sum(map(len, names.values()))
        return f"<Diagnostics: {passed} of {len(self.checks)} checks pass{said}>"

    @property
    def status(self) -> str:
        """The worst status of all checks."""
        states = {check.status for check in self.checks}
        return next((s for s in ("fail", "warn") if s in states), "pass")

    def summary(self) -> str:
        """One line a check."""
        lines = [f"{check.status:<4}  {check.name:<24} {check.figure:>11.4g}  {check.message}"
                 for check in self.checks]
        lines += [f"      {name:<24} {_shown(value):>11}" for name, value in self.figures.items()]
        return "\n".join(lines)

    def plot(self, axes: Any = None) -> Any:
        """Trace of the criterion and the strengths; returns the matplotlib figure."""
        return self.trace.plot(axes)

    def to_html(self, path: Any) -> None:
        """Write the checks as one self-contained HTML page, atomically."""
        write_checks(path, self.summary(), self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an artifact."""
        return {"checks": [asdict(check) for check in self.checks], "figures": self.figures,
                "noise": None if self.noise is None else asdict(self.noise)}

    @classmethod
    def from_dict(cls, values: dict[str, Any], trace: REMLTrace) -> Diagnostics:
        """Inverse of `to_dict`."""
        checks = tuple(Check(**{**item, "rows": tuple(item.get("rows", ()))})
                       for item in values["checks"])
        noise = values.get("noise")
        return cls(checks, values["figures"], trace,
                   None if noise is None else NoiseAccount(**noise))


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@single_threaded
def diagnose(
    model: SAEManifoldModel, result: FitResult, assignments: Array, second: Array | None = None
) -> Diagnostics:
    """All checks of a fitted SAE-manifold.

    Parameters
    ----------
    model : SAEManifoldModel
    result : FitResult
    assignments : (N, K) array
    second : (G, p, p) array, optional
        Posterior second moments of the noise of a Gaussian fit, in the units of the data, of the
        rows in each of its metrics.
    """
    checks = [
        _graded("outer convergence", result.converged,
                float(np.abs(result.gradient).max(initial=0.0)),
                result.message),
        _graded("inner convergence", result.inner.converged, result.inner.decrement,
                result.inner.status.value),
    ]
    at_box = [name for name, _ in result.limits]
    checks.append(Check(
        "strengths at a limit", "pass", float(len(at_box)),
        "; ".join(f"{name} is {kind}" for name, kind in result.limits) or "none"))
    counts = atom_counts(model.assignment, assignments, model.active)
    variances = _row_variances(model, result)
    for k, atom in enumerate(model.atoms):
        rows = np.flatnonzero(model.active[:, k])
        checks.append(check_occupancy(k, int(counts[k]), len(assignments)))
        if rows.size > EMPTY_ROWS and atom.intrinsic_dim:
            beta = result.theta.beta[model.layout.basis_slices[k]]
            t = result.theta.xi[rows, model.coordinate_columns(k)]
            checks.append(check_coverage(k, atom, t))
            checks.append(check_tangent(k, atom.jet(t, 1)[1] @ beta, atom.intrinsic_dim))
            if variances is not None:
                checks.append(check_coordinates(model, variances, k, rows))
            if rows_are_gaussian(model) and not atom.is_flat:  # which never comes back
                rows = rows[spread_index(len(rows), CERTIFIED_ROWS)]
                at = model, result.theta, result.rho, k, rows
                checks.append(check_places(
                    k, atom, place_nats(*at), drawn_nats(*at, np.random.default_rng(k))))
    if rows_are_gaussian(model) and rows_have_one_atom(model, assignments):
        checks.append(check_labels(model, result.theta, result.rho, assignments,
                                   spread_index(len(assignments), CERTIFIED_ROWS)))
    checks.append(_duplicates(model, result))
    checks.append(_laplace(model, result))
    if model.assignment.is_mixture and rows_are_gaussian(model) and not model.by_quadrature:
        checks.append(_left_out(model, result))
    figures, noise = _figures(model, result), None
    if model.family.has_dispersion:
        noise = NoiseAccount.of(model, result, second, figures[explained_name(model.family)])
        checks += [extreme_check(model, result), noise.check(model.noise),
                   undescribed_check(model, result)]
    return Diagnostics(tuple(checks), figures, result.trace, noise)


def atom_counts(
    assignment: Assignment, amplitudes: Array, gates: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Rows (K,) that use each atom; of a mixture, those that use it most."""
    return np.asarray(assignment.users(amplitudes, gates).sum(axis=0), np.intp)


def _row_variances(model: SAEManifoldModel, result: FitResult) -> Array | None:
    """Those of the joint mode; None where a fit that has failed left no curvature."""
    try:
        return model.joint_at(result.theta, result.rho).row_variances()
    except NotPositiveDefiniteError:
        return None


def _graded(name: str, good: bool, figure: float, message: str) -> Check:
    return Check(name, "pass" if good else "fail", figure, message)


def check_occupancy(k: int, count: int, n: int) -> Check:
    """Whether any row uses an atom."""
    status: Status = "fail" if count <= EMPTY_ROWS else "pass"
    what = "carries nothing; fit fewer atoms" if count <= EMPTY_ROWS else f"{count} of {n} rows"
    return Check(f"atom {k} occupancy", status, count / n, what)


def check_coverage(k: int, atom: Manifold, t: Array) -> Check:
    """Share of cells of the manifold, or of the bulk of its prior, that hold a row."""
    cells = atom.grid(COVERAGE_BINS if atom.intrinsic_dim == 1 else COVERAGE_BINS_SURFACE)
    away = atom.prior_jet(cells, 0)[0]
    cells = cells[away <= away.min() + BULK]
    apart = np.stack([atom.distance(np.broadcast_to(cell, t.shape), t) for cell in cells])
    share = np.unique(apart.argmin(axis=0)).size / min(len(cells), len(t))
    status: Status = ("fail" if share < LOWEST_COVERAGE else
                      "warn" if share < LOW_COVERAGE else "pass")
    return Check(f"atom {k} coverage", status, share,
                 f"share of {len(cells)} cells of the {atom.name} in use")


def check_tangent(k: int, slopes: Array, dim: int) -> Check:
    """Whether the tangent of an atom stays away from zero, by its slopes (n, d, p) at rows."""
    values = np.linalg.svd(slopes, compute_uv=False)[:, :dim]
    top = values.max(initial=0.0)
    ratio = float(np.quantile(values[:, -1], 0.05) / top) if top > 0 else 0.0
    status: Status = ("fail" if ratio < LOWEST_TANGENT else
                      "warn" if ratio < LOW_TANGENT else "pass")
    return Check(f"atom {k} tangent", status, ratio,
                 "smallest over largest tangent singular value, 5 % quantile")


def _left_out(model: SAEManifoldModel, result: FitResult) -> Check:
    """What V lacks for coordinates that rows do not carry, of a sample of rows."""
    rows = spread_index(len(result.theta.xi), CERTIFIED_ROWS)
    error = float(left_out(model, result.theta, result.rho, rows).mean())
    status: Status = "warn" if abs(error) > LARGE_ERROR else "pass"
    return Check("coordinates left out", status, error,
                 "nats a row that V lacks, for shares of atoms on which rows carry no coordinate: "
                 f"by sums on grids of {len(rows)} rows" + (
                     "; V would lack more, had the strength of the shares not been held"
                     if any(key.target == "logits" for key in model.held) else ""))


def _laplace(model: SAEManifoldModel, result: FitResult) -> Check:
    """Error of the Laplace approximation of a sample of rows, decoders held.

    It matters by what it is on average. The tails of single rows' weights (`Certificate.pareto_k`)
    are no reason to doubt it: at these few draws they look heavy in half of the rows of a good fit,
    whose mean is then within .01 nats of that of a hundred times as many draws.
    """
    if model.by_quadrature:
        return Check("row integrals", "pass", 0.0, "exact: the rows are integrated by quadrature")
    n = len(result.theta.xi)
    rows = spread_index(n, CERTIFIED_ROWS)
    copies = 1 if model.couples_rows else max(1, DRAWN_AT_ONCE // len(rows))
    many = np.tile(rows, copies)
    found = laplace_certificate(model.rows(many), Theta(result.theta.xi[many], result.theta.beta),
                                result.rho, copies=copies)
    errors = found.log_ratio - model.assignment.shut_gain(model.active)[rows]
    error, spread = float(errors.mean()), float(errors.std() / np.sqrt(len(errors)))
    status: Status = "warn" if abs(error) > LARGE_ERROR else "pass"
    return Check("row integrals", status, error,
                 f"error of Laplace's method in nats a row, +- {spread:.1g}, which V has too: by "
                 f"importance sampling of {len(rows)} rows")


def _duplicates(model: SAEManifoldModel, result: FitResult) -> Check:
    beta = result.theta.beta
    if model.noise.n_metrics > 1:
        beta = model.centred_decoders(beta)
    return check_duplicates([beta[where] for where in model.layout.basis_slices])


def check_duplicates(decoders: Sequence[Array]) -> Check:
    """Atoms, by their decoders (m, p), with one centre in one span, by its weakest direction."""
    spans = []
    for decoder in decoders:
        _, s, vt = np.linalg.svd(decoder[1:], full_matrices=False)
        spans.append(vt[s > 0.2 * s.max(initial=0.0)])
    centres = np.stack([decoder[0] for decoder in decoders])
    ranks = np.array([len(span) for span in spans])
    owners, every = np.repeat(np.arange(len(spans)), ranks), np.concatenate(spans)
    worst, pair = 0.0, "none"
    for i, decoder in enumerate(decoders):
        near = np.linalg.norm(centres[:i] - centres[i], axis=1) < 0.2 * np.linalg.norm(decoder)
        # the least cosine of two spans is below their root mean square
        squares = np.bincount(owners, ((spans[i] @ every.T) ** 2).sum(axis=0), len(spans))[:i]
        bound = np.sqrt(squares / np.maximum(np.minimum(ranks[:i], ranks[i]), 1)) * near
        for j in np.flatnonzero(bound > worst).tolist():
            cosine = float(np.linalg.svd(spans[i] @ spans[j].T, compute_uv=False).min())
            if cosine > worst:
                worst, pair = cosine, f"atoms {j} and {i}"
    status: Status = "warn" if worst > HIGH_COSINE else "pass"
    return Check("duplicate atoms", status, worst, f"largest subspace cosine: {pair}")


def explained_name(family: Family) -> str:
    """What the figure of the explained share is called."""
    return "explained variance" if family.has_dispersion else "explained deviance"


def _figures(model: SAEManifoldModel, result: FitResult) -> dict[str, Any]:
    point = model.joint_at(result.theta, result.rho)
    figures: dict[str, Any] = {
        "V": result.criterion,
        explained_name(model.family): point.explained(),
        "gauge directions": len(point.gauge),
        "rows with many atoms": int((model.active.sum(1) > 1).sum()),
    }
    backend = point.sparse_backend()
    if backend is not None:
        figures["sparse backend"] = backend
    n, q = result.theta.xi.shape
    for curvature in ("majorizer", "exact"):
        size = result.theta.beta.size
        if curvature == "exact" and (size > EXACT_BORDER or n * q * size > EXACT_ENTRIES):
            continue
        try:
            value = criterion_at(model, result.inner, curvature=curvature, gradient=False).value
            figures[f"V ({curvature})"] = value
        except (InputError, NotPositiveDefiniteError) as error:
            figures[f"V ({curvature})"] = f"not computed: {error}"
    return figures
