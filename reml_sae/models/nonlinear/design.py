"""Data and start of a nonlinear mixed model.

The start is the pooled fit, one curve for all observations, by damped scoring

    (J^T W J + damping * diag) step = -J^T loss',    J = df/dbeta,

whose residuals give the typical size of what the effects explain, and whose gradient that of each
parameter. There the data have to determine every parameter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.sparse import csr_matrix

from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.models.mixed.design import finite, group_numbers, redundant_columns
from reml_sae.models.nonlinear.mean import Mean, jets
from reml_sae.typing import Array

POOLED_STEPS, POOLED_DECREMENT = 50, 1e-6
FIRST_DAMPING, LEAST_DAMPING, MAX_DAMPING = 1e-3, 1e-10, 1e10
EXACT = 1e-10
"""Residuals below this share of the data are rounding."""


@dataclass(frozen=True, eq=False)
class GroupedData:
    """Responses and the groups that they belong to.

    Attributes
    ----------
    y : (n,) array
    group : (n,) int array
    labels : (G,) array
        The group labels, sorted.
    membership : (G, n) sparse array
        1 where an observation belongs to a group.
    """

    y: Array
    group: NDArray[np.intp]
    labels: NDArray[Any]
    membership: csr_matrix

    @property
    def n_groups(self) -> int:
        """G."""
        return len(self.labels)

    def sums(self, v: Array) -> Array:
        """Sums of v (n, ..) over the observations of every group, (G, ..)."""
        flat = self.membership @ v.reshape(len(v), -1)
        return np.asarray(flat, float).reshape(self.n_groups, *v.shape[1:])


def grouped_data(y: Any, groups: Any) -> GroupedData:
    """Check responses and groups; errors name the argument."""
    y = finite(y, "y")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not len(y):
        raise InputError(f"y must be a vector of at least one observation, got shape {y.shape}")
    if groups is None:
        raise InputError("groups must have one label for each observation, got None")
    n = len(y)
    group, labels = group_numbers(groups, n)
    members = csr_matrix((np.ones(n), (group, np.arange(n))), shape=(len(labels), n))
    return GroupedData(y, group, labels, members)


def named_start(start: Any) -> tuple[tuple[str, ...], Array]:
    """Names and starting values (P,) of the parameters."""
    if isinstance(start, Mapping):
        names, values = tuple(str(name) for name in start), list(start.values())
    else:
        values = start
        names = tuple(f"p{j}" for j in range(np.size(values)))
    array = finite(values, "start")
    if array.ndim != 1 or not len(array):
        raise InputError("start must be a mapping of parameter names to numbers, or a vector with "
                         f"one number for each parameter, got {start!r}")
    return names, array


def effect_columns(random: Any, names: tuple[str, ...]) -> NDArray[np.intp]:
    """Numbers of the parameters with an effect, in the order in which they are given."""
    if isinstance(random, str | int) or not len(random):
        raise InputError("random must be a sequence with the names of one or more parameters of "
                         f"{', '.join(names)}, got {random!r}")
    columns = []
    for item in random:
        if isinstance(item, str):
            number = names.index(item) if item in names else -1
        else:
            number = int(item) if isinstance(item, int | np.integer) else -1
        if not 0 <= number < len(names):
            raise InputError(f"random names {item!r}, which is none of the parameters "
                             f"{', '.join(names)}")
        columns.append(number)
    if len(set(columns)) < len(columns):
        raise InputError(f"random must name every parameter once, got {list(random)}")
    return np.array(columns, np.intp)


@dataclass(frozen=True, eq=False)
class PooledCurve:
    """One curve fitted to all observations.

    Attributes
    ----------
    beta : (P,) array
    eta : (n,) array
    gradient : (n, P) array
        d eta / d beta, of full rank.
    """

    beta: Array
    eta: Array
    gradient: Array

    @classmethod
    def fit(
        cls, mean: Mean, family: Family, y: Array, start: Array, names: Sequence[str]
    ) -> Self:
        """Fit the curve from ``start`` (P,); ``names`` are those of its parameters.

        Raises
        ------
        InputError
            Where the data do not determine the parameters, or the mean is not finite.
        """
        beta = _scoring(mean, family, y, start)
        eta, gradient = jets(mean, np.tile(beta, (len(y), 1)), 1)
        where = f"the pooled fit {dict(zip(names, beta.tolist(), strict=True))}"
        if not np.isfinite(gradient).all():
            raise InputError(f"mean has no finite gradient at {where}, where the search went from "
                             "start; choose another start")
        redundant = redundant_columns(gradient, [], names)
        if redundant:
            raise InputError(
                f"the data do not determine {', '.join(redundant)}: near {where} the other "
                "parameters do the same to the curve; choose another start, or drop parameters")
        return cls(beta, eta, gradient)

    def typical_rest(self, family: Family, y: Array) -> float:
        """Typical size of what effects explain: the rms residual, 1 where eta has its own scale."""
        if family.link != "identity":
            return 1.0
        target = family.initial_eta(y)
        size = float(np.sqrt(np.mean((target - self.eta) ** 2)))
        if size <= EXACT * float(np.sqrt(np.mean(target**2))):
            raise InputError("one curve explains y exactly, so that no variance can be estimated; "
                             "use more observations")
        return size

    def inverse_triangle(self) -> Array:
        """T^-1 (P, P) of gradient = Q T, Q with orthonormal columns."""
        triangle = np.linalg.qr(self.gradient)[1]
        return np.asarray(solve_triangular(triangle, np.eye(len(triangle))), float)


def _scoring(mean: Mean, family: Family, y: Array, beta: Array) -> Array:
    """Levenberg-Marquardt steps on a few dense coefficients.

    Not `solve_inner`: there are no rows yet, hence no arrow model, and a curve may not be finite.
    """
    psi = np.array(family.initial_psi(y), float)

    def loss(beta: Array) -> float:
        eta = jets(mean, np.tile(beta, (len(y), 1)), 0)[0]
        with np.errstate(over="ignore"):
            return float(family.loss(y, eta, psi).sum()) if np.isfinite(eta).all() else np.inf

    value, damping = loss(beta), FIRST_DAMPING
    for _ in range(POOLED_STEPS):
        eta, J = jets(mean, np.tile(beta, (len(y), 1)), 1)
        if not np.isfinite(J).all():
            break
        gradient = J.T @ family.loss_eta(y, eta, psi, 1)
        H = (J * family.weight(y, eta, psi, 0)[:, None]).T @ J
        size = np.sqrt(np.maximum(np.diagonal(H), 1e-300))
        H, gradient = H / np.outer(size, size), gradient / size
        while damping <= MAX_DAMPING:
            step = -np.linalg.solve(H + damping * np.eye(len(beta)), gradient)
            trial = loss(beta + step / size)
            if trial < value:
                break
            damping = max(10.0 * damping, LEAST_DAMPING)
        else:
            break
        beta, value, damping = beta + step / size, trial, damping / 10.0
        if float(step @ H @ step) < POOLED_DECREMENT**2:
            break
    return beta
