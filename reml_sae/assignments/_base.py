"""How a row's assignment parameters become the amplitudes of its atoms (DESIGN A7).

The chart coordinates zeta (N, dim) of the rows give logits z = zeta U^T (N, K), and these the
amplitudes a = a(z) (N, K), with which the atoms enter the predictor. `Amplitudes` holds a at one
state, and every contraction of its first three derivatives that the engine needs; the predictor is
linear in a, so nothing else of an assignment enters the data fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from reml_sae.typing import Array, Mask


class Amplitudes(ABC):
    """Amplitudes ``a`` (N, K) at one state, with contractions of their derivatives in z.

    J_kl = d a_k / d z_l and A_klm = d2 a_k / d z_l d z_m, row by row.
    """

    a: Array

    @abstractmethod
    def push(self, v: Array) -> Array:
        """J v for v (N, K, ..)."""

    @abstractmethod
    def pull(self, g: Array) -> Array:
        """J^T g for g (N, K, ..)."""

    @abstractmethod
    def jacobian(self) -> Array:
        """J, (N, K, K)."""

    @abstractmethod
    def hessian(self, s: Array) -> Array:
        """Sum over k of s_k A_klm for s (N, K): (N, K, K)."""

    @abstractmethod
    def contract_hessian(self, w: Array) -> Array:
        """Sum over lm of W_lm A_klm for symmetric W (N, K, K): (N, K)."""

    @abstractmethod
    def pull_jacobian(self, c: Array) -> Array:
        """Gradient (N, K) in z of sum_lk C_lk J_kl at fixed C (N, K, K), l first."""

    @abstractmethod
    def pull_hessian(self, s: Array, w: Array) -> Array:
        """Gradient (N, K) in z of sum_klm W_lm s_k A_klm at fixed s and symmetric W."""


@dataclass(frozen=True)
class Assignment(ABC):
    """A family of assignments of K atoms.

    Attributes
    ----------
    name : str
        Name in the registry.
    on_simplex : bool
        Amplitudes are positive and sum to one; their prior lives on the simplex. Otherwise the
        predictor has an intercept, which the atoms' constants cannot replace.
    hard_support : bool
        A row has parameters only for the atoms that it uses; which they are is chosen between
        inner solves. The amplitude then stretches an atom about its centre, which the row has
        whole: were it stretched too, a centre and an intercept far out and against each other
        would make of the amplitude a direction of its own.
    """

    n_atoms: int
    name: ClassVar[str]
    on_simplex: ClassVar[bool] = False
    hard_support: ClassVar[bool] = False

    @property
    def basis(self) -> Array:
        """U, (K, dim); the identity where every atom has a logit of its own."""
        return np.eye(self.n_atoms)

    @property
    def dim(self) -> int:
        """Chart coordinates of a row."""
        return self.basis.shape[1]

    @property
    def most_active(self) -> int:
        """Most atoms that a row may use."""
        return self.n_atoms

    @property
    def least_active(self) -> int:
        """Fewest atoms that a row may use."""
        return 0

    def logits(self, zeta: Array) -> Array:
        """Logits z (N, K) of the chart coordinates (N, dim)."""
        return zeta @ self.basis.T

    def coordinates(self, logits: Array) -> Array:
        """Chart coordinates (N, dim) of logits (N, K)."""
        return logits @ self.basis

    @abstractmethod
    def amplitudes(self, logits: Array, is_open: Mask) -> Amplitudes:
        """Amplitudes at logits (N, K); zero with all derivatives where an atom is not open."""

    @abstractmethod
    def start(self, support: Mask, amplitudes: Array) -> Array:
        """Chart coordinates (N, dim) at which rows use the atoms of ``support`` (N, K) this much.

        On the simplex the shares of ``amplitudes`` are taken as they are.
        """

    def log_patterns(self) -> float:
        """Log of the number of supports that a row can have, equally likely before the data."""
        return 0.0


class ElementwiseAmplitudes(Amplitudes):
    """Amplitudes a_k = g(z_k), each of its own logit.

    Parameters
    ----------
    a, first, second, third : (N, K) arrays
        g and its derivatives.
    """

    def __init__(self, a: Array, first: Array, second: Array, third: Array):
        self.a, self._first, self._second, self._third = a, first, second, third

    def push(self, v: Array) -> Array:
        """J v; J is diagonal."""
        return self._first.reshape(self._first.shape + (1,) * (v.ndim - 2)) * v

    def pull(self, g: Array) -> Array:
        """J^T g = J g."""
        return self.push(g)

    def jacobian(self) -> Array:
        """Diagonal of g'."""
        return _diagonal(self._first)

    def hessian(self, s: Array) -> Array:
        """Diagonal of s g''."""
        return _diagonal(s * self._second)

    def contract_hessian(self, w: Array) -> Array:
        """W_kk g''."""
        return np.einsum("nkk->nk", w) * self._second

    def pull_jacobian(self, c: Array) -> Array:
        """C_kk g''."""
        return np.einsum("nkk->nk", c) * self._second

    def pull_hessian(self, s: Array, w: Array) -> Array:
        """W_kk s_k g'''."""
        return np.einsum("nkk->nk", w) * s * self._third


def _diagonal(values: Array) -> Array:
    return values[:, :, None] * np.eye(values.shape[1])
