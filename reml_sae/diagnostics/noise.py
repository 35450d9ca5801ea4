"""The noise of a fit: its share of the variance, what its shape is worth, and rows outside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from reml_sae.diagnostics.check import Check
from reml_sae.engine import FitResult
from reml_sae.families.noise import (
    MARGIN,
    Diagonal,
    Factor,
    Isotropic,
    Noise,
    PerAtom,
    RowNoise,
    best_noise,
    charged,
    nats,
)
from reml_sae.io import extreme_rows, named_rows
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import row_weights
from reml_sae.typing import Array

JUDGED_COLUMNS = 512
"""Columns up to which isotropic noise is compared with others: beyond them that takes longer."""
UNDESCRIBED = "rows not described"
LEVEL = 0.001
"""Of the test that no row is farther from its curves than noise; of all rows together."""
LEAST_WEIGHT = 0.1
"""Weight of a row of unequal scale below which it is named."""
SHOWN = 6


@dataclass(frozen=True)
class NoiseAccount:
    """What the noise of a fit holds of the variance, and what its shape is worth.

    Attributes
    ----------
    share : float
        Of the variance of the rows about their means, at their weights.
    explained : float
        Share that the curves explain; the two make one but for what codes take of the noise.
    gained : float
        Nats by which the shape fits better than isotropic noise at the same curves.
    cost : float
        Nats that V charges for the parameters of the shape.
    missed : float
        Nats by which V of isotropic noise is above that of the ``better`` kind, at these curves.
    better : str
        Empty where no other kind is better, or none was tried.
    at_floor : bool
        Whether there is no noise: the dispersion is the least that a fit can have.
    """

    share: float
    explained: float
    gained: float
    cost: float
    missed: float
    better: str
    at_floor: bool

    @classmethod
    def of(cls, model: SAEManifoldModel, result: FitResult, second: Array | None,
           explained: float) -> NoiseAccount:
        """The account of a Gaussian fit.

        Parameters
        ----------
        model : SAEManifoldModel
        result : FitResult
        second : (G, p, p) array or None
            Posterior second moments of the noise, in the units of the data, of the rows in each of
            its metrics; needed where `looks_at_shape`.
        explained : float
        """
        noise, n = model.noise, len(model.Z)
        place = model.outer.dispersion
        assert place is not None
        phi = model.family.dispersion(result.rho[model.outer.psi])
        weights = row_weights(model, result.theta, result.rho)
        total = float(weights @ (model.coloured**2).sum(axis=1)) / model.Z.size
        counts = np.bincount(model.metrics, minlength=noise.n_metrics)
        shapes = noise_shapes(noise, len(model.atoms))
        held = phi * sum(count * np.exp(noise.log_size(atoms[0])) * shape.mean_variance
                         for (atoms, shape), count in zip(shapes, counts, strict=True)) / n
        gained = missed = 0.0
        better = ""
        at_floor = bool(result.rho[place] <= model.outer.bounds[place, 0])
        if second is not None and not at_floor:
            plain = Isotropic(model.shape[1])
            whole = np.tensordot(counts / n, second, 1)
            if noise.kind != plain.kind:
                gained = nats(plain, whole, n) - sum(
                    nats(shape, own, count)
                    for (_, shape), own, count in zip(shapes, second, counts, strict=True))
            else:
                other = best_noise("auto", whole, n)
                missed = charged(plain, whole, n) - charged(other, whole, n)
                better = other.kind if other.kind != plain.kind else ""
        return cls(float(held / total) if total else 0.0, explained, gained,
                   noise.rows_cost(model.metrics), missed, better, at_floor)

    @property
    def net(self) -> float:
        """Nats by which V is lower for the shape, at the same curves."""
        return self.gained - self.cost

    def check(self, noise: RowNoise) -> Check:
        """Whether the noise is such that V can be trusted."""
        if self.at_floor:
            return Check("noise", "warn", 0.0, "none: the curves explain the rows up to rounding, "
                         "and the dispersion is at its floor. Do not compare V with that of fits "
                         "that leave noise; the bands have no width")
        if self.better:
            return Check("noise", "warn", self.missed, f"nats by which {self.better} noise is "
                         "better at these curves; V may prefer a wrong shape or order. Fit again "
                         "with noise='auto'")
        if noise.kind == "isotropic":
            return Check("noise", "pass", self.net, "isotropic, and no other kind is better")
        what = ("noises of the atoms earn" if isinstance(noise, PerAtom)
                else f"{noise.kind} shape earns")
        if self.net < MARGIN:
            return Check("noise", "warn", self.net, f"nats that the {what}, too few; use "
                         "noise='isotropic', or 'auto'")
        return Check("noise", "pass", self.net, f"nats that the {what}")


def looks_at_shape(model: SAEManifoldModel) -> bool:
    """Whether the account of a model needs the second moment of its noise."""
    return model.family.has_dispersion and (
        model.noise.kind != "isotropic" or model.shape[1] <= JUDGED_COLUMNS)


def noise_shapes(noise: RowNoise, n_atoms: int) -> list[tuple[list[int], Noise]]:
    """The atoms of every metric of the noise, and its shape there."""
    metrics = noise.atom_metrics(n_atoms)
    groups = [np.flatnonzero(metrics == g).tolist() for g in range(noise.n_metrics)]
    return [(atoms, noise.of_atom(atoms[0])) for atoms in groups]


def atom_names(atoms: list[int]) -> str:
    """Atoms by their numbers."""
    return f"{'atom' if len(atoms) == 1 else 'atoms'} {', '.join(map(str, atoms))}"


def _shape_line(noise: Noise, sd: float) -> str:
    """The standard deviations of a noise whose geometric mean is ``sd``."""
    if isinstance(noise, Diagonal):
        sds = sd * np.exp(0.5 * noise.log_variances)
        low, high = int(sds.argmin()), int(sds.argmax())
        return (f"diagonal: the columns' sd goes from {sds[low]:.4g} (column {low}) to "
                f"{sds[high]:.4g} (column {high})")
    if isinstance(noise, Factor) and noise.rank:
        floor = sd * np.sqrt(noise.floor)
        sds = floor * np.sqrt(noise.ratios)
        shown = ", ".join(f"{value:.4g}" for value in sds[:SHOWN])
        return (f"factor of rank {noise.rank}: sd {shown}{', ..' if noise.rank > SHOWN else ''} "
                f"along its directions over a floor of {floor:.4g}")
    return f"isotropic: sd {sd:.4g} in every direction"


def noise_lines(
    noise: RowNoise, dispersion: float, account: NoiseAccount | None, n_atoms: int
) -> list[str]:
    """What a reader is to conclude of the noise, in lines for a summary."""
    lines = []
    for atoms, shape in noise_shapes(noise, n_atoms):
        sd = float(np.sqrt(dispersion) * np.exp(0.5 * noise.log_size(atoms[0])))
        whose = f"{atom_names(atoms)}: " if noise.n_metrics > 1 else ""
        lines.append(f"  {whose}{_shape_line(shape, sd)}")
    if account is None:
        return lines
    lines.append(f"  it holds {_percent(account.share)} of the variance of the rows; the curves "
                 f"explain {_percent(account.explained)}")
    if account.at_floor:
        return [*lines, "  there is no noise: the curves explain the rows up to rounding"]
    if isinstance(noise, Factor) and noise.rank:
        held = account.share * noise_share(noise)
        lines.append(f"  {_percent(held)} lies along the factors, where the entries of all rows "
                     "vary together and on no curve"
                     + ("; that is more than all curves explain" if held > account.explained
                        else ""))
    if account.better:
        lines.append(f"  {account.better} noise would be {account.missed:.1f} nats better at these "
                     "curves: fit again with noise='auto' before you trust V")
    if noise.kind != "isotropic":
        fit, cost, it = (("they fit", "cost", "them") if isinstance(noise, PerAtom)
                         else ("its shape fits", "costs", "it"))
        lines.append(f"  {fit} {account.gained:.1f} nats better than isotropic noise at these "
                     f"curves and {cost} {account.cost:.1f}: V "
                     + (f"needs {it}" if account.net >= MARGIN else f"does not need {it}"))
    return lines


def noise_share(noise: Factor) -> float:
    """Share of the noise that its factors add to the floor."""
    return 1.0 - noise.floor / noise.mean_variance


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"


def extreme_check(model: SAEManifoldModel, result: FitResult) -> Check:
    """Whether few rows hold much of the variance, and count."""
    found = extreme_rows(model.coloured)
    if found is None:
        return Check("rows of extreme norm", "pass", 0.0, "none")
    most = float(row_weights(model, result.theta, result.rho)[found.index].max())
    if most < LEAST_WEIGHT:
        return Check("rows of extreme norm", "pass", found.share,
                     f"{named_rows(found.index, found.n_rows)} hold {found.share:.0%} of the "
                     f"variance and hardly count: weights of at most {most:.2g}",
                     tuple(map(int, found.index)))
    return Check("rows of extreme norm", "warn", found.share, found.message(),
                 tuple(map(int, found.index)))


def undescribed_check(model: SAEManifoldModel, result: FitResult) -> Check:
    """Rows whose residual is out of proportion under the fitted noise.

    Of rows of unequal scale, those that hardly count.
    """
    name = UNDESCRIBED
    if not model.family.equal_weights:
        weights = row_weights(model, result.theta, result.rho)
        index = np.flatnonzero(weights < LEAST_WEIGHT)
        index = index[np.argsort(weights[index], kind="stable")]
        if not index.size:
            return Check(name, "pass", 0.0, f"none: no row has a weight below {LEAST_WEIGHT:g}")
        return Check(name, "warn", float(index.size),
                     f"{named_rows(index, len(weights))} hardly count, with weights of "
                     f"{weights[index[0]]:.2g} to {weights[index[-1]]:.2g}: they do not decide the "
                     "fit",
                     tuple(map(int, index)))
    residual = model.Z - model.scaled_basis(result.theta)[1] @ result.theta.beta
    phi = model.family.dispersion(result.rho[model.outer.psi])
    taken = model.active @ [atom.intrinsic_dim for atom in model.atoms]
    return check_distances((residual**2).sum(axis=1) / phi, model.shape[1] - taken)


def check_distances(distance: Array, freedom: Array) -> Check:
    """Rows that are farther from their curves than noise, level by Bonferroni's bound over all.

    Parameters
    ----------
    distance : (N,) array
        Squared residuals over phi, which are chi-square.
    freedom : (N,) array
        Their degrees of freedom: p less those that the coordinates take.
    """
    tail = np.where(freedom > 0, chi2.logsf(distance, np.maximum(freedom, 1)), 0.0)
    index = np.flatnonzero(tail < np.log(LEVEL / len(tail)))
    index = index[np.argsort(-distance[index], kind="stable")]
    if not index.size:
        return Check(UNDESCRIBED, "pass", 0.0, "none: no row is farther from its curves than noise")
    return Check(UNDESCRIBED, "warn", float(index.size),
                 f"{named_rows(index, len(tail))} farther from the curves than noise "
                 f"(chi-square p < {LEVEL:g} for all rows together)", tuple(map(int, index)))
