"""How a row's assignment parameters become the amplitudes of its atoms (DESIGN A7).

The chart coordinates zeta (N, dim) of the rows give logits z = zeta U^T (N, K), and these the
amplitudes a = a(z) (N, K), with which the atoms enter the predictor. `Amplitudes` holds a at one
state, and every contraction of its first three derivatives that the engine needs; the predictor is
linear in a, so nothing else of an assignment enters the data fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from reml_sae.penalties import MatrixPenalty, Penalty
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

    # --- density that the chart carries: none, where the prior is one of the logits themselves ---

    def log_jacobian(self) -> Array:
        """Negative log density J(z) of every row that the chart adds to the prior, (N,)."""
        return np.zeros(len(self.a))

    def log_jacobian_gradient(self) -> Array:
        """Gradient of J in z, (N, K)."""
        return np.zeros_like(self.a)

    def log_jacobian_hessian(self) -> Array:
        """Hessian of J in z, (N, K, K)."""
        return np.zeros((*self.a.shape, self.a.shape[1]))

    def log_jacobian_hessian_vjp(self, w: Array) -> Array:
        """Gradient (N, K) in z of <W, Hess J> at fixed symmetric W (N, K, K)."""
        return np.zeros_like(self.a)


@dataclass(frozen=True)
class LogitPrior:
    """A prior that an assignment brings where the user gave none on its target.

    Attributes
    ----------
    penalty : Penalty
    target : "amplitudes" or "gates"
        The logits of open atoms, or the pattern of which are open.
    atom : int
        The atom whose logit it is; -1 for all.
    """

    penalty: Penalty
    target: Literal["amplitudes", "gates"]
    atom: int = -1


@dataclass(frozen=True)
class Assignment(ABC):
    """A family of assignments of K atoms.

    Attributes
    ----------
    name : str
        Name in the registry.
    is_mixture : bool
        A row is a mixture of its atoms: amplitudes are positive and sum to one.
    has_intercept : bool
        The predictor has an intercept, which the atoms' constants cannot replace.
    is_log_normal : bool
        An amplitude is the exponential of its logit.
    chooses_support : bool
        Which atoms a row uses is chosen between inner solves; elsewhere it is read off the state.
    """

    n_atoms: int
    name: ClassVar[str]
    is_mixture: ClassVar[bool] = False
    has_intercept: ClassVar[bool] = True
    is_log_normal: ClassVar[bool] = False
    chooses_support: ClassVar[bool] = False

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

    @property
    def is_single(self) -> bool:
        """Whether a row has no parameters but those of one atom at most."""
        return False

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

    # --- what a row has, given its support ---------------------------------------------------

    def open_mask(self, support: Mask) -> Mask:
        """Atoms (N, K) that enter the predictor of rows with this support (N, K)."""
        return np.ones_like(support)

    def carried(self, support: Mask) -> Mask:
        """Chart coordinates (N, dim) that these rows have; the others are held."""
        return np.ones((len(support), self.dim), bool)

    def centres(self, support: Mask) -> Mask | None:
        """Rows (N, K) that have an atom's constant whole; None where it goes with the amplitude."""
        return np.zeros_like(support)

    def whole_constants(self, constants: Array) -> Array:
        """What a row that uses an atom has of its constant, whatever its amplitude."""
        return np.zeros_like(constants)

    def users(self, amplitudes: Array, support: Mask) -> Mask:
        """Rows and atoms (N, K) where the row counts as one of the atom's."""
        return support

    def leading(self, amplitudes: Array) -> Mask:
        """Atoms (N, K) that a row uses whatever it resolves."""
        return np.zeros(amplitudes.shape, bool)

    def normalised(self, amplitudes: Array) -> Array:
        """Amplitudes (N, K) that this assignment can have, from those of more or fewer atoms."""
        return amplitudes

    # --- priors ------------------------------------------------------------------------------

    def own_priors(self) -> tuple[LogitPrior, ...]:
        """Priors of the logits, without which V would not be proper."""
        return ()

    def default_penalties(self) -> tuple[Penalty, ...]:
        """Penalties of a fit that was given none."""
        return ()

    def objection(self, penalty: Penalty) -> str:
        """Why a penalty does not go with this assignment; empty where it does."""
        kind, target = penalty.KIND_TAG, penalty.acts_on()
        if target == "logits" and isinstance(penalty, MatrixPenalty):
            return f"{kind} is a prior on the simplex; use it with assignment='softmax'"
        if target == "gate logits" and kind != self.name:
            return f"{kind} is a prior on gates; use it with assignment={kind!r}"
        return ""

    def log_volume(self) -> float:
        """Log volume of a row's amplitudes under the flat prior that the chart carries."""
        return 0.0

    def log_patterns(self) -> float:
        """Log of the number of supports that a row can have, equally likely before the data."""
        return 0.0

    # --- what Laplace's method does not see ----------------------------------------------------

    def shut_gain(self, support: Mask) -> Array:
        """Nats (N,) that Laplace's method loses of atoms that rows hardly use."""
        return np.zeros(len(support))

    def shut(self, logits: Array, support: Mask) -> Mask:
        """Gates (N, K) that rest where Laplace's method counts more mass than there is."""
        return np.zeros_like(support)

    def shut_cost(self, precision: float) -> tuple[float, float]:
        """Nats of that mass for logits of this prior precision, and d / d log precision."""
        return 0.0, 0.0


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
