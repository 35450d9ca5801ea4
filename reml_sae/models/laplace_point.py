"""The objective with the rows integrated out by Laplace's method (DESIGN A8).

    T(xi, beta) = (1/2) log|D| + f,       D the rows' blocks, f the volume of compact coordinates
    L(beta)     = min over xi of F + T,   V = min L + (1/2) log|S| + ..,   S = A - C^T D^-1 C

The criterion is that of the joint arrowhead, log|H| = log|D| + log|S|, at the mode of F + T and not
of F: the joint mode of rows and decoders is biased by what every row adds (Neyman and Scott 1948).

A row is expanded where its own evidence F_i + T_i is best, not where F_i alone is. Both are Laplace
approximations of the same order; in one dimension the first has three fifths of the term in the
squared third derivative that the second leaves out. And L is then the minimum of one joint
objective: it is continuous in beta where a mode of F_i ends in a fold, and its gradient needs no
derivative of a moving mode.

Second derivatives of T are central differences of its gradient, so that no fourth derivatives of
the bases are needed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reml_sae.inner._protocol import LogDeterminant, Theta
from reml_sae.linalg import SpanFactor
from reml_sae.models.row_blocks import RowBlocks, RowTrace
from reml_sae.models.sae_point import SAEPoint
from reml_sae.penalties import Curvature

if TYPE_CHECKING:
    from reml_sae.models.sae import SAEManifoldModel

Array = NDArray[np.float64]

DIFFERENCE = 1e-4
"""Length of the step of a central difference: radians, or shares of the decoders' size."""


class LaplacePoint:
    """F + T of an `SAEManifoldModel` at a state.

    Parameters
    ----------
    model : SAEManifoldModel
    theta : Theta
    rho : (n_rho,) array
    """

    def __init__(self, model: SAEManifoldModel, theta: Theta, rho: Array):
        self.model, self.theta, self.rho = model, theta, rho
        self.joint = SAEPoint(model, theta, rho)
        self.gauge = self.joint.gauge
        self.rows = RowBlocks(self.joint)

    @cached_property
    def objective(self) -> float:
        """F + T, but for the (2 pi)^(q / 2) of the rows, which the criterion counts."""
        return self.joint.objective + self.rows.value

    @cached_property
    def volume(self) -> RowTrace:
        """T and its gradients."""
        return self.rows.half_logdet.plus(self.rows.volume)

    def gradient(self) -> Theta:
        """Gradient of F + T."""
        return self.joint.gradient().plus(self.volume.theta)

    def factorize(self, damping: float = 0.0) -> SpanFactor:
        """Factor of H + damping * diag(H), H the majorized curvature of F."""
        return self.joint.factorize(damping)

    # --- second derivatives --------------------------------------------------------------------

    def _difference(self, v: Theta) -> RowTrace:
        """Derivative of the gradients of T along v."""
        size = float(np.sqrt(np.mean(self.theta.beta**2))) + 1e-3
        length = max(float(np.abs(v.xi).max(initial=0.0)),
                     float(np.abs(v.beta).max(initial=0.0)) / size, np.finfo(float).tiny)
        step = DIFFERENCE / length
        above, below = (LaplacePoint(self.model, self.model.retract(self.theta, v, sign * step),
                                     self.rho).volume for sign in (1.0, -1.0))
        return above.plus(below, -1.0).scaled(0.5 / step)

    def hvp(self, v: Theta) -> Theta:
        """Hessian of F + T (plus the gauge terms) times a vector."""
        out = self.joint.hvp(v)
        return out.plus(self._difference(v).theta) if v.max_abs() else out

    has_cheap_hvp = True

    def newton_hvp(self, v: Theta) -> Theta:
        """Hessian of F times a vector: that of T is smaller by the information of a row."""
        return self.joint.hvp(v)

    def gradient_rho_dot(self, u: Theta) -> Array:
        """Inner products of u with d grad (F + T) / d rho_m, (n_rho,)."""
        out = self.joint.gradient_rho_dot(u)
        return out + self._difference(u).rho if u.max_abs() else out

    # --- criterion -------------------------------------------------------------------------------

    def half_logdet(self, curvature: Curvature) -> LogDeterminant:
        """(1/2) log|S| with the gauge volume and its gradients.

        Under the exact curvature, (1/2) log|H| less the (1/2) log|D| that T has.
        """
        whole, half = self.joint.half_logdet(curvature), self.rows.half_logdet
        return LogDeterminant(whole.value - half.value, whole.theta.plus(half.theta, -1.0),
                              whole.rho - half.rho, whole.edf, whole.rho)

    def objective_rho(self) -> Array:
        """Gradient of F + T in rho at fixed theta, (n_rho,)."""
        return self.joint.objective_rho() + self.volume.rho

    def energy_rho(self) -> Array:
        """Gradient of F in rho at fixed theta, (n_rho,)."""
        return self.joint.objective_rho()

    def normalizer_in_objective_rho(self) -> Array:
        """What quadratic strengths have of their normaliser within F: its gradient, (n_rho,)."""
        return self.joint.normalizer_in_objective_rho()

    def log_normalizer(self) -> tuple[float, Array]:
        """Log partitions of all priors, less the log number of equal modes; gradient in rho."""
        value, gradient = self.joint.log_normalizer()
        return value - self.model.log_multiplicity, gradient

    def decoder_posterior(self, k: int) -> tuple[float, Array]:
        """Effective degrees of freedom of decoder k, and its covariance (p, M_k, M_k)."""
        return self.joint.decoder_posterior(k)

    @property
    def dispersion_energy(self) -> float:
        """Half the deviance over the dispersion."""
        return self.joint.dispersion_energy
