"""What the engine asks of a likelihood.

Entries z are independent given their linear predictors eta and the family's outer parameters psi,
which are in log form. Every family is written around its saturated fit,

    loss(z, eta, psi) = deviance(z, eta, psi) / (2 phi) + saturated_loss(z, psi),

with the dispersion phi = exp(psi[0]) of the scaled families and 1 of the others. The first part is
zero at the best eta for z and positive elsewhere; the second one is the rest of the negative log
density, with all its constants. Large terms that cancel in the textbook density (z log mu against
log z!) then never meet, so the loss keeps its digits at counts and shapes of any size.

A first-order quantity of the loss is *observed*; the IRLS weights are *expected*, the mean over z
of the second derivative in eta, so they are not negative and do not depend on z.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from reml_sae.typing import Array

LOG_DISPERSION = "log_dispersion"
GAUSSIAN_STEP = 0.8
"""Spacing, in standard deviations, at which the trapezoid rule integrates a Gaussian to rounding,
exp(-2 (pi / .8)^2)."""
UNIT_FREE_BOX = (-50.0, 50.0)
"""Box of a log scale whose unit is that of the data."""


class Family(ABC):
    """Likelihood of independent entries; every method works entry by entry and broadcasts.

    Arguments are the data ``z``, the linear predictors ``eta``, both of one shape, and ``psi``, an
    array (n_psi,) in the order of `psi_names`. Any finite ``eta`` gives finite values: see
    `_special.exp_limited`.

    Attributes
    ----------
    name : str
        Name that `get_family` knows.
    link : str
        Name of the function of the mean that eta is.
    psi_names : tuple of str
        Names of the outer parameters.
    has_dispersion : bool
        Whether every curvature of the loss in eta is proportional to exp(-psi[0]): the Gaussian.
    equal_weights : bool
        Whether observed and expected curvature are one number for all entries: the Gaussian.
    row_weights : bool
        Whether the curvature is one number for all entries of a row, beside the part of rank one
        that `tail` tells: the Gaussian, and the t of whole rows. It keeps the border of an arrow
        matrix a Kronecker product. Entries are then those of rows (.., p).
    """

    name: ClassVar[str]
    link: ClassVar[str]
    has_dispersion: ClassVar[bool] = False
    equal_weights: ClassVar[bool] = False
    row_weights: ClassVar[bool] = False

    @property
    def has_row_scales(self) -> bool:
        """Whether rows have scales of their own: the t of whole rows."""
        return self.row_weights and not self.equal_weights

    # --- data ----------------------------------------------------------------------------------

    @abstractmethod
    def check(self, z: Array) -> None:
        """Refuse data that the family cannot have produced.

        Raises
        ------
        InputError
            Naming the first bad entry and the remedy.
        """

    def restrict(self, rows: NDArray[np.intp], shape: tuple[int, ...]) -> Self:
        """The family for the given rows of data of this shape."""
        return self

    # --- outer parameters ----------------------------------------------------------------------

    @property
    def psi_names(self) -> tuple[str, ...]:
        """Names of the outer parameters, in order."""
        return ()

    @property
    def n_psi(self) -> int:
        """Number of outer parameters."""
        return len(self.psi_names)

    def psi_bounds(self) -> Array:
        """Box that the outer loop searches, (n_psi, 2)."""
        return np.zeros((0, 2))

    def initial_psi(self, z: Array) -> Array:
        """Outer parameters (n_psi,) by moments, inside the box."""
        return np.zeros(0)

    def psi_about(self, z: Array, eta: Array) -> Array:
        """Outer parameters (n_psi,) for data about predictors that are a start, inside the box."""
        return self.initial_psi(z)

    def best_psi(self, residual: Array) -> Array:
        """Outer parameters of greatest likelihood for rows (n, p) that are left, of a Gaussian."""
        mean = float(np.mean(residual**2))
        return np.clip(np.log([max(mean, np.finfo(float).tiny)]), *self.psi_bounds()[0])

    def centre_and_scale(self, data: Array) -> tuple[Array, float]:
        """Mean (p,) of rows (n, p), and the root of their mean square about it."""
        mean = data.mean(axis=0)
        return mean, float(np.sqrt(np.mean((data - mean) ** 2)))

    def dispersion(self, psi: Array) -> float:
        """phi, the number that divides half the deviance in the loss."""
        return 1.0

    # --- loss ----------------------------------------------------------------------------------

    def loss(self, z: Array, eta: Array, psi: Array) -> Array:
        """Negative log density of every entry, with all its constants."""
        scale = 0.5 / self.dispersion(psi)
        return scale * self.deviance(z, eta, psi) + self.saturated_loss(z, psi)

    def row_loss(self, z: Array, eta: Array, psi: Array) -> Array:
        """Loss of every row, (..)."""
        if not self.row_weights:
            return np.asarray(self.loss(z, eta, psi).sum(axis=-1))
        residual = z - eta
        squares = np.einsum("...p,...p->...", residual, residual)
        return self.row_losses(squares, residual.shape[-1], psi)[0]

    @abstractmethod
    def saturated_loss(self, z: Array, psi: Array) -> Array:
        """Loss of every entry at its own best eta (the limit, where that is infinite)."""

    @abstractmethod
    def deviance(self, z: Array, eta: Array, psi: Array) -> Array:
        """Unit deviance: 2 phi times the loss above its saturated value, >= 0."""

    @abstractmethod
    def loss_eta(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Observed derivative of the loss in eta, of order 1, 2 or 3."""

    def row_losses(self, squares: Array, p: int, psi: Array) -> tuple[Array, Array]:
        """Losses and weights of rows of p entries at squared distances |z - eta|^2 (..).

        Where entries of a row have one weight.
        """
        raise NotImplementedError

    def settled_psi(self, squares: Array, p: int, psi: Array) -> Array:
        """Psi with what has no Fellner-Schall step at its best for rows of these lengths."""
        return psi

    def row_weight(self, z: Array, eta: Array, psi: Array) -> Array:
        """Weight of every row (..) where rows have scales of their own; 1 elsewhere."""
        return np.ones(np.broadcast_shapes(np.shape(z), np.shape(eta))[:-1])

    def row_weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative of `row_weight` in psi, (n_psi, ..)."""
        return np.zeros((self.n_psi, *np.broadcast_shapes(np.shape(z), np.shape(eta))[:-1]))

    def tail(self, psi: Array, p: int) -> float:
        """Number kappa by which a row's curvature is diag(loss_eta(.., 2)) - kappa s s^T.

        s is -loss_eta(.., 1); the derivative of `row_weight` in eta is kappa times itself times s.
        Zero where the entries of a row are independent.
        """
        return 0.0

    def tail_psi(self, psi: Array, p: int) -> Array:
        """Derivative of `tail` in psi, (n_psi,)."""
        return np.zeros(self.n_psi)

    def laplace_excess(self, known: Array, p: int, psi: Array) -> tuple[Array, Array]:
        """What Laplace's method misses of rows with a scale that is integrated out.

        Parameters
        ----------
        known : (n,) array
            How many parameters of a row its p entries tell.
        p : int
        psi : (n_psi,) array

        Returns
        -------
        Nats by which -log of Laplace's integral of each row is too large (n,), and their
        derivatives (n_psi, n).
        """
        return np.zeros(len(known)), np.zeros((self.n_psi, len(known)))

    def step(self, psi: Array, p: int) -> float:
        """Spacing of nodes, in standard deviations of a row's sharpest posterior."""
        return GAUSSIAN_STEP

    def curvature_gradient(self, z: Array, eta: Array, psi: Array, q: Array) -> Array:
        """Gradient in eta, of its shape, of a row's sum of q times loss_eta(.., 2) at fixed q."""
        return self.loss_eta(z, eta, psi, 3) * q

    def open_side(self, z: Array) -> NDArray[np.int8]:
        """Way in which eta may go to infinity while the loss falls: 1 up, -1 down, 0 neither."""
        return np.zeros(np.shape(z), np.int8)

    @abstractmethod
    def weight(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """IRLS weight E[loss_eta(.., 2)] (order 0), or its derivative in eta (order 1).

        Only the shape of ``z`` is used.
        """

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative of the loss in psi, (n_psi, ..)."""
        return np.zeros((0, *np.broadcast_shapes(np.shape(z), np.shape(eta))))

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Derivative in psi of `loss_eta` of order 1 or 2, (n_psi, ..)."""
        return np.zeros((0, *np.broadcast_shapes(np.shape(z), np.shape(eta))))

    def weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Derivative in psi of `weight`, (n_psi, ..)."""
        return np.zeros((0, *np.broadcast_shapes(np.shape(z), np.shape(eta))))

    def natural(self, psi: Array) -> dict[str, float]:
        """The family's own parameters by the names and on the scales that a reader knows."""
        return {name.removeprefix("log_"): float(np.exp(value))
                for name, value in zip(self.psi_names, psi, strict=True)}

    # --- distribution --------------------------------------------------------------------------

    @abstractmethod
    def mean(self, eta: Array) -> Array:
        """Mean of z."""

    @abstractmethod
    def variance(self, eta: Array, psi: Array) -> Array:
        """Variance of z."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, eta: Array, psi: Array) -> Array:
        """Draws of z, as floats of the shape of eta."""

    @abstractmethod
    def initial_eta(self, z: Array) -> Array:
        """Linear predictors near the saturated fit, finite for every legal z."""


class ScaledFamily(Family):
    """A family whose one outer parameter is log phi, and loss minus normaliser goes as 1 / phi."""

    @property
    def psi_names(self) -> tuple[str, ...]:
        """The log dispersion."""
        return (LOG_DISPERSION,)

    def psi_bounds(self) -> Array:
        """Box of the log dispersion, (1, 2)."""
        return np.array([UNIT_FREE_BOX])

    def dispersion(self, psi: Array) -> float:
        """phi = exp(psi[0])."""
        return float(np.exp(psi[0]))

    @abstractmethod
    def saturated_loss_psi(self, z: Array, psi: Array) -> Array:
        """Derivative of `saturated_loss` in psi[0], of the shape of z."""

    def loss_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Half the deviance over -phi, and the part of the normaliser, (1, ..)."""
        scale = 0.5 / self.dispersion(psi)
        return (self.saturated_loss_psi(z, psi) - scale * self.deviance(z, eta, psi))[None]

    def loss_eta_psi(self, z: Array, eta: Array, psi: Array, order: int) -> Array:
        """Minus `loss_eta`, (1, ..)."""
        return -self.loss_eta(z, eta, psi, order)[None]

    def weight_psi(self, z: Array, eta: Array, psi: Array) -> Array:
        """Minus `weight`, (1, ..)."""
        return -self.weight(z, eta, psi, 0)[None]
