"""Noise of their own for the rows of each atom, or each group of atoms.

    z_i | eta_i ~ N(eta_i, phi s_g Omega_g),    |Omega_g| = 1,    g the group of the one atom of i

which is a mixture of factor analysers with curved means where the shapes are factors. Beside the
shapes V charges for the sizes: d = log s ~ N(0, 1) each, on sum(d) = 0, with the information
n_g p / 2 about d_g of the n_g rows of a group. With one group nothing is charged but its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from reml_sae.families.noise._base import Noise, RowNoise
from reml_sae.families.noise._registry import NOISES
from reml_sae.typing import Array, Index, Mask

LEAST_ROWS = 2
"""Of a group, as they are counted: what a shape costs is not known for fewer."""


@dataclass(frozen=True, eq=False)
class PerAtom(RowNoise):
    """Noise of G groups of atoms.

    Attributes
    ----------
    noises : tuple of G Noise
        Omega_g.
    sizes : (G,) array
        d, of sum zero.
    spreads : (G,) array
        Mean square of all rows, in squared units of the model, in the metric of each Omega_g.
    groups : (K,) int array
        The group of each atom.
    """

    noises: tuple[Noise, ...]
    sizes: Array
    spreads: Array
    groups: Index
    kind: ClassVar[str] = "per_atom"

    def __repr__(self) -> str:
        return f"PerAtom({', '.join(map(repr, self.noises))}, groups={self.groups.tolist()})"

    @classmethod
    def alike(cls, noise: Noise, n_atoms: int) -> Self:
        """One group of all atoms, in units of the root mean square of its rows."""
        return cls((noise,), np.zeros(1), np.ones(1), np.zeros(n_atoms, np.intp))

    @classmethod
    def of(cls, arrays: Mapping[str, Array], kinds: list[str], p: int) -> Self:
        """Made of ``arrays`` (see `arrays`) of noises of these kinds, of p columns."""
        noises = []
        for g, kind in enumerate(kinds):
            own = {name.removeprefix(f"{g}."): value for name, value in arrays.items()
                   if name.startswith(f"{g}.")}
            noises.append(NOISES.get(kind).of(own, p))
        return cls(tuple(noises), arrays["sizes"], arrays["spreads"],
                   arrays["groups"].astype(np.intp))

    def arrays(self) -> dict[str, Array]:
        """``sizes``, ``spreads``, ``groups``, and those of noise g with ``g.`` before them."""
        out: dict[str, Any] = {"sizes": self.sizes, "spreads": self.spreads,
                               "groups": self.groups.astype(float)}
        for g, noise in enumerate(self.noises):
            out |= {f"{g}.{name}": value for name, value in noise.arrays().items()}
        return out

    # --- metrics of rows ---------------------------------------------------------------------

    @property
    def n_metrics(self) -> int:
        """G."""
        return len(self.noises)

    def atom_metrics(self, n_atoms: int) -> Index:
        """The groups."""
        return self.groups

    def metrics(self, support: Mask, before: Index) -> Index:
        """The group of the atom that a row uses."""
        return np.where(support.any(axis=1), self.groups[support.argmax(axis=1)], before)

    def whiten_rows(self, Z: Array, metrics: Index) -> Array:
        """Rows (N, p), each in the metric of its group (N,)."""
        return self._by_group(Z, metrics, lambda g, rows: (
            np.exp(-0.5 * self.sizes[g]) * self.noises[g].whiten(rows)))

    def colour_rows(self, Z: Array, metrics: Index) -> Array:
        """The inverse of `whiten_rows`."""
        return self._by_group(Z, metrics, lambda g, rows: (
            np.exp(0.5 * self.sizes[g]) * self.noises[g].colour(rows)))

    def _by_group(self, Z: Array, metrics: Index, change: Any) -> Array:
        out = np.empty_like(Z)
        for g in np.unique(metrics):
            rows = metrics == g
            out[rows] = change(g, Z[rows])
        return out

    def log_sizes(self, metrics: Index) -> Array:
        """d of each row's group, (N,)."""
        return np.asarray(self.sizes[metrics])

    @property
    def is_observed(self) -> bool:
        """Whether one of them is."""
        return any(noise.is_observed for noise in self.noises)

    def observed(self, moments: Array) -> Self:
        """Each noise of the rows in its metric."""
        return replace(self, noises=tuple(
            noise.observed(moments[[g]]) for g, noise in enumerate(self.noises)))

    def of_atom(self, k: int) -> Noise:
        """That of its group."""
        return self.noises[self.groups[k]]

    def log_size(self, k: int) -> float:
        """That of its group."""
        return float(self.sizes[self.groups[k]])

    def decoder_precisions(self, n_atoms: int) -> Array:
        """s of each atom over the mean square of all rows in the metric of its shape, (K,)."""
        return np.asarray((np.exp(self.sizes) / self.spreads)[self.groups])

    # --- evidence ----------------------------------------------------------------------------

    def counts(self, metrics: Index) -> Index:
        """Rows of each group (G,), `LEAST_ROWS` where there are fewer."""
        return np.maximum(np.bincount(metrics, minlength=self.n_metrics), LEAST_ROWS)

    def rows_cost(self, metrics: Index) -> float:
        """What the shapes cost, and the prior and information of the sizes."""
        counts = self.counts(metrics)
        shapes = sum(noise.cost(int(n)) for noise, n in zip(self.noises, counts, strict=True))
        information = 1.0 + 0.5 * counts * len(self.noises[0].shape)
        # of the information on sum(d) = 0
        log_information = np.log(information).sum() + np.log(np.mean(1.0 / information))
        return float(shapes + 0.5 * (self.sizes @ self.sizes) + 0.5 * log_information)

    def parameters(self) -> Array:
        """Those of the shapes, and d where there are several groups."""
        own = [noise.parameters() for noise in self.noises]
        return np.concatenate([*own, self.sizes if self.n_metrics > 1 else np.zeros(0)])

    def _parts(self, parameters: Array) -> list[Array]:
        """Parameters of each shape, and d."""
        return np.split(parameters, np.cumsum([len(noise.parameters()) for noise in self.noises]))

    def at(self, parameters: Array) -> Self:
        """The noise of other parameters; its ``spreads`` are still those of this one."""
        *own, sizes = self._parts(parameters)
        noises = tuple(noise.at(x) for noise, x in zip(self.noises, own, strict=True))
        return replace(self, noises=noises, sizes=sizes - sizes.mean() if len(sizes)
                       else np.zeros(1))

    def scaled(self, steps: Array) -> Array:
        """See `Noise.scaled`; those of each shape, and d."""
        *own, sizes = self._parts(steps)
        return np.concatenate([*(noise.scaled(x) for noise, x in zip(self.noises, own,
                                                                       strict=True)), sizes])

    def spread_by(self, second: Array) -> Self:
        """With the spreads of rows of this second moment (p, p), in squared units of the model."""
        return replace(self, spreads=np.array([noise.dispersion(second) for noise in self.noises]))

    def gradient(
        self, parameters: Array, rows: Array, slope: Array, metrics: Index, curves: Array,
        centres: Array, second: Array,
    ) -> Array:
        """Gradient in the parameters (k,) of a function of the rows, and of the cost.

        Parameters
        ----------
        parameters : (k,) array
            Those from which ``at`` made this noise.
        rows : (N, p) array
            In their metrics.
        slope : (N, p) array
            Derivative of the function in them.
        metrics : (N,) int array
        curves, centres : (K,) arrays
            Derivatives of the function in the logs of ``decoder_precisions``, and of the
            precisions of centres, which go with s alone.
        second : (p, p) array
            Second moment of all rows, in squared units of the model.
        """
        p, counts, out = len(second), self.counts(metrics), []
        along = np.bincount(self.groups, curves, self.n_metrics)
        *own, sizes = self._parts(parameters)
        by_size = self.sizes + along + np.bincount(self.groups, centres, self.n_metrics)
        for g, (noise, x) in enumerate(zip(self.noises, own, strict=True)):
            mine = metrics == g
            X, s = rows[mine], slope[mine]
            W = noise.whiten(np.eye(p))
            by_metric = noise.colour(X).T @ s
            by_metric -= 2.0 * along[g] / (p * noise.dispersion(second)) * second @ W
            out.append(noise.gradient(x, by_metric, int(counts[g])))
            by_size[g] += 0.5 * (X.size - float(np.vdot(s, X)))
        return np.concatenate([*out, by_size - by_size.mean() if len(sizes) else sizes])
