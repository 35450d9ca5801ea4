"""Gates: assignments under which a row uses several atoms, each with an amplitude of its own.

    topk                       a row uses exactly n_active atoms; any set of them is equally likely
    ordered_beta_bernoulli     a row uses any atoms; how often each is used has a Beta prior that
                               falls with its number (`OrderedBetaBernoulliPenalty`)
    threshold_gate             a = z sigmoid((z - threshold) / width), a smooth JumpReLU

Under the first two the support is hard: a row has parameters only for its own atoms, and which they
are is chosen between inner solves, by the row evidence. So exp(-P) of the Beta-Bernoulli prior is
taken on binary gates, where it sums to one; relaxed gates in (0, 1) would need another normaliser
and would not close: their mode at the odds (1 - pi) / pi = 20 is a gate of .3.
An open atom adds c_k + a (Phi_k(t) B_k - c_k), c_k its constant, with the amplitude a = exp(z) and
z ~ N(0, 1 / lambda), lambda chosen by REML: a log-normal law, under which amplitudes that are all
equal are the limit of a large lambda.

Under a threshold gate every row has a pre-activation z_k ~ N(0, 1 / lambda_k) of every atom. An
atom that a row does not use rests at z = 0, where its amplitude is zero. Atoms are centred on the
intercept: they have no constant of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, log
from typing import ClassVar

import numpy as np
from scipy.special import expit, log_ndtr

from reml_sae.assignments._base import Assignment, ElementwiseAmplitudes, LogitPrior
from reml_sae.errors import InputError
from reml_sae.penalties import ARDPenalty, OrderedBetaBernoulliPenalty, Penalty
from reml_sae.typing import Array, Mask

LEAST_AMPLITUDE = 1e-3
FARTHEST = 100.0


@dataclass(frozen=True)
class _LogAmplitudes(Assignment):
    """A row has parameters only for the atoms that it uses.

    The amplitude stretches an atom about its centre, which the row has whole: were it stretched
    too, a centre and an intercept far out and against each other would make of the amplitude a
    direction of its own.
    """

    is_log_normal: ClassVar[bool] = True
    chooses_support: ClassVar[bool] = True

    @property
    def is_single(self) -> bool:
        """Whether a row uses one atom at most."""
        return self.most_active == 1

    def open_mask(self, support: Mask) -> Mask:
        """The support."""
        return support

    def carried(self, support: Mask) -> Mask:
        """The log amplitudes of the support."""
        return support

    def centres(self, support: Mask) -> Mask:
        """The support."""
        return support

    def whole_constants(self, constants: Array) -> Array:
        """All of them."""
        return constants

    def own_priors(self) -> tuple[LogitPrior, ...]:
        """One normal law of all log amplitudes."""
        return (LogitPrior(ARDPenalty(latent_dim=1), "amplitudes"),)

    def objection(self, penalty: Penalty) -> str:
        """Penalties that couple all rows, too."""
        if penalty.acts_on() == "coordinates" and not penalty.ROW_BLOCK_DIAGONAL:
            return (f"{penalty.KIND_TAG} couples the coordinates of all rows, but under "
                    f"assignment={self.name!r} a row has none of the atoms that it does "
                    "not use; use assignment='softmax'")
        return super().objection(penalty)

    def amplitudes(self, logits: Array, is_open: Mask) -> ElementwiseAmplitudes:
        """exp(z) of open atoms."""
        # a trial step far out of reach is refused for its value, which must be finite for that
        a = np.where(is_open, np.exp(np.minimum(np.where(is_open, logits, 0.0), FARTHEST)), 0.0)
        return ElementwiseAmplitudes(a, a, a, a)

    def start(self, support: Mask, amplitudes: Array) -> Array:
        """Log amplitudes of the support."""
        return np.log(np.maximum(np.where(support, amplitudes, 1.0), LEAST_AMPLITUDE))


@dataclass(frozen=True)
class TopK(_LogAmplitudes):
    """Exactly ``n_active`` atoms a row, with free amplitudes.

    Parameters
    ----------
    n_atoms : int
    n_active : int
        At least 1 and at most K.
    """

    n_active: int = 1
    name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        _check_active(self.n_active, self.n_atoms)

    @property
    def most_active(self) -> int:
        """n_active."""
        return self.n_active

    @property
    def least_active(self) -> int:
        """n_active."""
        return self.n_active

    def log_patterns(self) -> float:
        """Log of K choose n_active."""
        return log(comb(self.n_atoms, self.n_active))


@dataclass(frozen=True)
class OrderedBetaBernoulli(_LogAmplitudes):
    """Independent gates, at most ``n_active`` of them open in a row, with free amplitudes.

    Parameters
    ----------
    n_atoms : int
    n_active : int
        Bound of the search over supports, at least 1 and at most K.
    """

    n_active: int = 1
    name: ClassVar[str] = "ordered_beta_bernoulli"

    def __post_init__(self) -> None:
        _check_active(self.n_active, self.n_atoms)

    @property
    def most_active(self) -> int:
        """n_active."""
        return self.n_active

    def own_priors(self) -> tuple[LogitPrior, ...]:
        """That of the log amplitudes, and the Beta-Bernoulli prior of the gates."""
        gates = OrderedBetaBernoulliPenalty(k_atoms=self.n_atoms)
        return (*super().own_priors(), LogitPrior(gates, "gates"))


@dataclass(frozen=True)
class ThresholdGate(Assignment):
    """Smooth JumpReLU a = z sigmoid((z - threshold) / width).

    Parameters
    ----------
    n_atoms : int
    threshold : float
        Pre-activation > 0 at which the gate is half open.
    width : float > 0
    """

    threshold: float = 0.5
    width: float = 0.1
    name: ClassVar[str] = "threshold_gate"

    def __post_init__(self) -> None:
        for field in ("threshold", "width"):
            value = getattr(self, field)
            if not np.isfinite(value) or value <= 0:
                raise InputError(f"{field} must be a positive number, got {value!r}")

    def amplitudes(self, logits: Array, is_open: Mask) -> ElementwiseAmplitudes:
        """z sigmoid((z - threshold) / width) and its derivatives."""
        g0 = expit((logits - self.threshold) / self.width)
        g1 = g0 * (1.0 - g0) / self.width
        g2 = g1 * (1.0 - 2.0 * g0) / self.width
        g3 = (g2 * (1.0 - 2.0 * g0) - 2.0 * g1**2) / self.width
        z = logits
        return ElementwiseAmplitudes(z * g0, g0 + z * g1, 2.0 * g1 + z * g2, 3.0 * g2 + z * g3)

    def own_priors(self) -> tuple[LogitPrior, ...]:
        """A normal law of the pre-activations of every atom."""
        return tuple(LogitPrior(ARDPenalty(latent_dim=1), "amplitudes", k)
                     for k in range(self.n_atoms))

    def shut(self, logits: Array, support: Mask) -> Mask:
        """Gates without a coordinate and below half their threshold."""
        return ~support & (logits < 0.5 * self.threshold)

    def shut_cost(self, precision: float) -> tuple[float, float]:
        """-log P(z < threshold) of z ~ N(0, 1 / precision), and d / d log precision.

        A shut gate rests at z = 0, where Laplace's method counts the whole Gaussian; beyond the
        threshold the likelihood has cut it off.
        """
        x = self.threshold * np.sqrt(precision)
        log_mass = float(log_ndtr(x))
        density = np.exp(-0.5 * x**2 - log_mass) / np.sqrt(2.0 * np.pi)
        return -log_mass, -0.5 * x * float(density)

    def start(self, support: Mask, amplitudes: Array) -> Array:
        """Pre-activations: the amplitudes above the threshold, zero off the support."""
        return np.where(support, np.maximum(amplitudes, 1.5 * self.threshold), 0.0)


def _check_active(n_active: int, n_atoms: int) -> None:
    if not isinstance(n_active, (int, np.integer)) or not 1 <= n_active <= n_atoms:
        raise InputError(f"n_active must be an integer from 1 to n_atoms={n_atoms}, "
                         f"got {n_active!r}")
