"""Curves of nonlinear mixed models, with their derivatives in the parameters.

A *mean* is a callable ``mean(parameters, order)`` that returns the jets of

    eta_i = f_i(phi_i),    phi_i = row i of ``parameters`` (n, P),

up to an order of 0 to 3: a tuple of the arrays f (n,), df (n, P), d2f (n, P, P), d3f (n, P, P, P).
Covariates are closed over. `Curve` makes one from a formula. A mean is checked once, where its
model is made: the derivatives of each order against fourth-order differences of the order below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reml_sae.errors import InputError
from reml_sae.models.nonlinear.jets import Jet, vector
from reml_sae.typing import Array

STEPS = (1e-3, 1e-4, 1e-2, 1e-5)
"""Steps of the differences that check a mean, as shares of the parameter; one has to agree."""
AGREEMENT, ROUNDING = 1e-5, 1e-12
SPREAD = 0.05
"""Derivatives are checked where parameters differ from the start by up to this share."""


class Mean(Protocol):
    """A curve with its derivatives."""

    def __call__(self, parameters: Array, order: int) -> Sequence[Array]:
        """Derivatives of order 0 .. ``order`` at ``parameters`` (n, P)."""
        ...


@dataclass(frozen=True)
class Curve:
    """A mean from a formula, with exact derivatives.

    Parameters
    ----------
    function : callable
        Takes P vectors (n,), one for each parameter, and returns eta (n,). It may use arithmetic,
        powers, and exp, expm1, log, log1p, sqrt, square, reciprocal, sin, cos, tanh, arctan of
        numpy, and scipy.special.expit.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([0.0, 1.0])
    >>> decay = Curve(lambda size, rate: size * np.exp(-rate * x))
    >>> value, gradient = decay(np.array([[2.0, 0.0], [2.0, 0.0]]), 1)
    >>> np.abs(gradient).tolist()
    [[1.0, 0.0], [1.0, 2.0]]
    """

    function: Callable[..., Any]

    def __call__(self, parameters: Array, order: int) -> tuple[Array, ...]:
        """Derivatives of order 0 .. ``order`` at ``parameters`` (n, P)."""
        n, p = parameters.shape
        if order == 0:
            return (vector(self.function(*parameters.T), n),)
        out = self.function(*Jet.seeds(parameters, order))
        if isinstance(out, Jet):
            return out.parts
        zeros = [np.zeros((n, *(p,) * k)) for k in range(1, order + 1)]
        return (vector(out, n), *zeros)


def jets(mean: Mean, phi: Array, order: int) -> tuple[Array, ...]:
    """Derivatives of order 0 .. ``order`` at ``phi`` (n, P); not finite outside the domain."""
    # trial steps may leave the domain, and are refused by their value
    with np.errstate(all="ignore"):
        return tuple(np.asarray(part, float) for part in mean(phi, order))


def check_mean(mean: Mean, start: Array, names: Sequence[str], n: int) -> None:
    """Check the shapes of a mean's derivatives, and their values by differences.

    Parameters
    ----------
    mean : Mean
    start : (P,) array
        The derivatives are checked near these parameters.
    names : sequence of str
    n : int
        Number of observations.

    Raises
    ------
    InputError
        Naming the derivative that is wrong, and where.
    """
    p = len(start)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        _check_parts(mean(np.tile(start, (n, 1)), 0), 0, n, p, "at start")
        base = start * (1.0 + SPREAD * rng.uniform(-1.0, 1.0, (n, p)))
        for order in range(4):
            given = _check_parts(mean(base, order), order, n, p, "near start")
        scales = np.where(start == 0.0, 1.0, np.abs(start))
        checks = [_differences(mean, base, given, j, scales[j]) for j in range(p)]
    for order in range(3):  # a wrong derivative makes that of the next order look wrong too
        for j, (errors, slopes) in enumerate(checks):
            if not (errors[order] <= 1.0).all():
                _refuse(order + 1, j, errors[order], slopes[order], given[order + 1], names)


def _check_parts(parts: Any, order: int, n: int, p: int, where: str) -> list[Array]:
    if not isinstance(parts, tuple | list) or len(parts) != order + 1:
        raise InputError(f"mean(parameters, {order}) must return a tuple of {order + 1} arrays, "
                         f"the derivatives of order 0 to {order}")
    out = []
    for k, part in enumerate(parts):
        array, shape = np.asarray(part, float), (n, *(p,) * k)
        if array.shape != shape:
            raise InputError(f"mean(parameters, {order})[{k}] must have shape {shape}, "
                             f"got {array.shape}")
        bad = np.argwhere(~np.isfinite(array))
        if len(bad):
            raise InputError(f"mean(parameters, {order})[{k}] is not finite {where}, first for "
                             f"observation {int(bad[0, 0])}; choose another start, or a mean "
                             "that is smooth there")
        out.append(array)
    return out


def _differences(
    mean: Mean, base: Array, given: list[Array], j: int, scale: float
) -> tuple[list[Array], list[Array]]:
    """Errors, 1 is allowed, of the derivatives in parameter j of order 1, 2, 3, and differences.

    Of several steps that one counts which agrees best, entry by entry.
    """
    errors = [np.full(part.shape[1:], np.inf) for part in given[:3]]
    slopes = [np.full(part.shape, np.nan) for part in given[:3]]
    for step in STEPS:
        h = np.zeros(base.shape[1])
        h[j] = step * scale
        moved = [mean(base + k * h, 2) for k in (1, -1, 2, -2)]
        for order in range(3):
            a, b, c, d = (np.asarray(parts[order], float) for parts in moved)
            slope, own = (8.0 * (a - b) - (c - d)) / (12.0 * h[j]), given[order + 1][..., j]
            allowed = AGREEMENT * np.abs(own).max(axis=0)
            allowed = allowed + ROUNDING / h[j] * np.abs(given[order]).max()
            error = np.abs(slope - own).max(axis=0) / np.maximum(allowed, 1e-300)
            better = error < errors[order]
            errors[order] = np.where(better, error, errors[order])
            slopes[order] = np.where(better, slope, slopes[order])
        if all((error <= 1.0).all() for error in errors):
            break
    return errors, slopes


def _refuse(
    order: int, j: int, error: Array, slope: Array, given: Array, names: Sequence[str]
) -> None:
    entry = tuple(int(k) for k in np.unravel_index(np.argmax(error), error.shape))
    own, found = given[..., j].reshape(len(given), -1), slope.reshape(len(given), -1)
    column = int(np.argmax(error))
    i = int(np.argmax(np.abs(own[:, column] - found[:, column])))
    label = ", ".join(names[k] for k in (*entry, j))
    raise InputError(
        f"mean gives a wrong derivative of order {order} in ({label}): {own[i, column]:.6g} for "
        f"observation {i}, where differences of the order below give {found[i, column]:.6g}; "
        "correct it, or let Curve differentiate the formula")
