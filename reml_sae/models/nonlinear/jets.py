"""Forward differentiation of formulas to the third order.

Every intermediate result carries its value and derivatives (Griewank and Walther 2008, Evaluating
Derivatives, chapter 13), by the rules of Leibniz and Faa di Bruno,

    (fg)_ijk = f g_ijk + g f_ijk + sym3(f_i g_jk) + sym3(g_i f_jk),
    u(f)_ijk = u' f_ijk + u'' sym3(f_i f_jk) + u''' f_i f_j f_k,

where sym3 sums over the three ways to choose the single index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy.special import expit

from reml_sae.errors import InputError
from reml_sae.typing import Array


class Jet(NDArrayOperatorsMixin):
    """Values of a function of P parameters at n places, with their derivatives.

    Parameters
    ----------
    parts : tuple of arrays (n,), (n, P), (n, P, P), (n, P, P, P)
        Of order 0 to 1, 2 or 3.
    """

    def __init__(self, parts: tuple[Array, ...]):
        self.parts = parts

    @classmethod
    def seeds(cls, parameters: Array, order: int) -> list[Jet]:
        """The parameters (n, P) themselves, as P jets."""
        n, p = parameters.shape
        higher = tuple(np.zeros((n, *(p,) * k)) for k in range(2, order + 1))
        return [cls((parameters[:, j].copy(), np.tile(np.eye(p)[j], (n, 1)), *higher))
                for j in range(p)]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Jet:
        """Apply a numpy function."""
        if method != "__call__" or options:
            raise InputError(f"a Curve cannot use np.{ufunc.__name__}.{method} or its options; "
                             "write the formula with plain calls")
        if ufunc in BINARY:
            return BINARY[ufunc](*inputs)
        if ufunc in DERIVATIVES:
            return self.chain(DERIVATIVES[ufunc](self.parts[0]))
        raise InputError(
            f"a Curve cannot differentiate {ufunc.__name__}; use one of "
            f"{', '.join(u.__name__ for u in (*BINARY, *DERIVATIVES))}, or give a mean "
            "that returns its own derivatives")

    def chain(self, u: Sequence[Array]) -> Jet:
        """u(f) from the derivatives u, u', u'', u''' (n,) at f."""
        first = self.parts[1]
        out = [u[0], u[1][:, None] * first]
        if len(self.parts) > 2:
            square = first[:, :, None] * first[:, None, :]
            out.append(_times(u[2], square) + _times(u[1], self.parts[2]))
        if len(self.parts) > 3:
            cube = square[..., None] * first[:, None, None, :]
            out.append(_times(u[3], cube) + _times(u[2], _sym3(first, self.parts[2]))
                       + _times(u[1], self.parts[3]))
        return Jet(tuple(out))


def _times(v: Array, part: Array) -> Array:
    return v.reshape(-1, *(1,) * (part.ndim - 1)) * part


def _sym3(v: Array, m: Array) -> Array:
    """v_i m_jk + v_j m_ik + v_k m_ij for v (n, P) and symmetric m (n, P, P)."""
    t = v[:, :, None, None] * m[:, None]
    return t + t.transpose(0, 2, 1, 3) + t.transpose(0, 2, 3, 1)


def vector(value: Any, n: int) -> Array:
    """A number or a vector as (n,)."""
    array = np.asarray(value, float)
    if array.shape not in ((), (n,)):
        raise InputError(f"a Curve works on vectors of the {n} observations, and met an array of "
                         f"shape {array.shape}")
    return np.broadcast_to(array, (n,))


def _add(a: Any, b: Any) -> Jet:
    if isinstance(a, Jet) and isinstance(b, Jet):
        return Jet(tuple(x + y for x, y in zip(a.parts, b.parts, strict=True)))
    jet, number = (a, b) if isinstance(a, Jet) else (b, a)
    value = jet.parts[0]
    return Jet((value + vector(number, len(value)), *jet.parts[1:]))


def _multiply(a: Any, b: Any) -> Jet:
    if not (isinstance(a, Jet) and isinstance(b, Jet)):
        jet, number = (a, b) if isinstance(a, Jet) else (b, a)
        factor = vector(number, len(jet.parts[0]))
        return Jet(tuple(_times(factor, part) for part in jet.parts))
    (f, f1, *f_rest), (g, g1, *g_rest) = a.parts, b.parts
    out = [f * g, _times(f, g1) + _times(g, f1)]
    if f_rest:
        cross = f1[:, :, None] * g1[:, None, :]
        out.append(_times(f, g_rest[0]) + _times(g, f_rest[0]) + cross + cross.transpose(0, 2, 1))
    if len(f_rest) > 1:
        out.append(_times(f, g_rest[1]) + _times(g, f_rest[1]) + _sym3(f1, g_rest[0])
                   + _sym3(g1, f_rest[0]))
    return Jet(tuple(out))


def _divide(a: Any, b: Any) -> Jet:
    inverse = b.chain(_power_derivatives(b.parts[0], -1.0)) if isinstance(b, Jet) else 1.0 / b
    return _multiply(a, inverse)


def _power(a: Any, b: Any) -> Jet:
    if isinstance(b, Jet):
        return np.exp(b * np.log(a))
    return a.chain(_power_derivatives(a.parts[0], vector(b, len(a.parts[0]))))


def _power_derivatives(x: Array, exponent: float | Array) -> list[Array]:
    out, factor = [], np.ones_like(x)
    for k in range(4):
        # a vanished factor stays zero where x is zero and its exponent negative
        safe = np.where(factor == 0.0, 1.0, x)
        out.append(factor * safe ** (exponent - k))
        factor = factor * (exponent - k)
    return out


def _exp(x: Array) -> list[Array]:
    return [np.exp(x)] * 4


def _expm1(x: Array) -> list[Array]:
    return [np.expm1(x), *[np.exp(x)] * 3]


def _log(x: Array) -> list[Array]:
    return [np.log(x), 1.0 / x, -1.0 / x**2, 2.0 / x**3]


def _log1p(x: Array) -> list[Array]:
    return [np.log1p(x), *_log(1.0 + x)[1:]]


def _sin(x: Array) -> list[Array]:
    return [np.sin(x), np.cos(x), -np.sin(x), -np.cos(x)]


def _cos(x: Array) -> list[Array]:
    return [np.cos(x), -np.sin(x), -np.cos(x), np.sin(x)]


def _tanh(x: Array) -> list[Array]:
    t = np.tanh(x)
    slope = 1.0 - t**2
    return [t, slope, -2.0 * t * slope, slope * (6.0 * t**2 - 2.0)]


def _arctan(x: Array) -> list[Array]:
    slope = 1.0 / (1.0 + x**2)
    return [np.arctan(x), slope, -2.0 * x * slope**2, (6.0 * x**2 - 2.0) * slope**3]


def _expit(x: Array) -> list[Array]:
    p = expit(x)
    slope = p * expit(-x)
    return [p, slope, slope * (1.0 - 2.0 * p), slope * (1.0 - 6.0 * slope)]


BINARY: dict[np.ufunc, Callable[..., Jet]] = {
    np.add: _add,
    np.subtract: lambda a, b: _add(a, _multiply(b, -1.0) if isinstance(b, Jet) else np.negative(b)),
    np.multiply: _multiply,
    np.divide: _divide,
    np.power: _power,
}
"""Rules of functions of two arguments, of which one or both are jets."""
DERIVATIVES: dict[np.ufunc, Callable[[Array], Sequence[Array]]] = {
    np.negative: lambda x: [-x, -np.ones_like(x), np.zeros_like(x), np.zeros_like(x)],
    np.positive: lambda x: [x, np.ones_like(x), np.zeros_like(x), np.zeros_like(x)],
    np.square: lambda x: _power_derivatives(x, 2.0),
    np.sqrt: lambda x: _power_derivatives(x, 0.5),
    np.reciprocal: lambda x: _power_derivatives(x, -1.0),
    np.exp: _exp, np.expm1: _expm1, np.log: _log, np.log1p: _log1p, np.sin: _sin, np.cos: _cos,
    np.tanh: _tanh, np.arctan: _arctan, expit: _expit,
}
"""u, u', u'' and u''' of functions of one argument."""
