"""The contract of an atom topology.

A topology gives a basis Phi(t) with derivatives, the prior of the coordinates t as a negative log
density with derivatives, a roughness penalty, its gauge group, a retraction and a distance. The
prior of a row is exp(-prior(t)) / exp(log_prior_volume): the integral is over the manifold.

Where t lies in a larger space (`Sphere`: unit vectors of R^3) the basis is extended so that it does
not change along the normals, and the prior holds the normal directions: its Hessian there is the
identity, so that a Laplace approximation integrates them to the same constant that
`log_prior_volume` has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from reml_sae.errors import InputError
from reml_sae.manifolds._fourier import wrap_angle
from reml_sae.manifolds._rules import Rule
from reml_sae.typing import Array

Relaxation = Literal["ring", "shell", "flat", "none"]
"""What an atom is to a search that knows linear subspaces alone.

ring    an ellipse, but for finer detail; its coordinate is the angle in [-pi, pi)
shell   of nearly constant length in its ``linear_dim`` dimensions, once these are whitened
flat    its coordinates are the standardised scores on its leading axes
none    no more than a cloud in its ``linear_dim`` dimensions
"""


class Manifold(ABC):
    """Shape of an atom: a basis Phi on a manifold with all that the engine asks of it.

    Attributes
    ----------
    name : str
        Name in the registry.
    is_euclidean : bool
        Coordinates live in R^d with the prior N(0, I), so that a penalty on coordinates has a
        meaning and may take the place of the prior.
    size_parameter : str or None
        Field that sets the number of basis functions alone, so that V may choose it; the class is
        then a dataclass. None where there is none.
    size_step : int
        Distance between its values.
    """

    name: ClassVar[str]
    is_euclidean: ClassVar[bool]
    size_parameter: ClassVar[str | None] = None
    size_step: ClassVar[int] = 1

    @property
    def label(self) -> str:
        """Name with parameters, such as ``circle(n_harmonics=2)``."""
        config = self.to_config()
        name = config.pop("topology")
        values = ", ".join(f"{key}={value}" for key, value in config.items())
        return f"{name}({values})" if values else str(name)

    def resized(self, steps: int) -> Self | None:
        """The same manifold with a basis so many sizes wider, or narrower where below zero.

        Its coordinates mean the same, so that rows keep theirs. None where there is no such basis.
        """
        if self.size_parameter is None:
            return None
        size = getattr(self, self.size_parameter) + steps * self.size_step
        resize: Any = replace
        try:
            changed: Self = resize(self, **{self.size_parameter: size})
        except InputError:
            return None
        return changed

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """Number d of coordinates."""

    @property
    def intrinsic_dim(self) -> int:
        """Dimension of the manifold; less than d where t lies in a larger space."""
        return self.latent_dim

    @property
    def gaussian_axes(self) -> tuple[int, ...]:
        """Coordinates with the prior N(0, 1); the others, where there are any, are angles."""
        return tuple(range(self.latent_dim)) if self.is_euclidean else ()

    @property
    def angular_axes(self) -> tuple[int, ...]:
        """Coordinates that are angles, uniform of themselves."""
        return ()

    @property
    def relaxation(self) -> Relaxation:
        """Shape of the atom in the linear relaxation from which a fit starts."""
        return "none"

    @property
    def is_flat(self) -> bool:
        """Whether the basis is affine in the coordinates, so that the atom is never curved."""
        return False

    @property
    def is_fourier(self) -> bool:
        """Whether the basis is (1, cos t, sin t, .., cos Ht, sin Ht) of one angle t.

        Its roughness is then that of the penalty `harmonic_roughness`, in its units.
        """
        return False

    @property
    def has_ends(self) -> bool:
        """Whether t is one coordinate that stands for a uniform position between two ends."""
        return False

    @property
    def linear_axes(self) -> tuple[int, ...]:
        """Coordinates with the prior N(0, 1) in which, all together, the basis is affine."""
        return ()

    @property
    def has_rule(self) -> bool:
        """Whether `rule` gives a quadrature."""
        return self.rule(np.ones(self.latent_dim)) is not None

    @property
    def log_multiplicity(self) -> float:
        """Log of how many modes of the decoder are the same atom, seen in a mirror.

        A reflection of the coordinates, undone by the decoder, leads to another mode of the same
        height, which no rotation of the gauge reaches. The evidence is the sum over all of them.
        """
        return 0.0

    @property
    @abstractmethod
    def basis_size(self) -> int:
        """Number M of basis functions; the first is the constant."""

    @property
    @abstractmethod
    def linear_dim(self) -> int:
        """Dimension of the affine subspace that holds most of the atom, for the first start."""

    @abstractmethod
    def jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Basis and its derivatives up to ``order`` <= 3 at coordinates (n, d).

        Returns
        -------
        tuple of (n, M), (n, d, M), (n, d, d, M), (n, d, d, d, M)
        """

    def basis(self, t: Array) -> Array:
        """Basis (n, M) at coordinates (n, d)."""
        return self.jet(t, 0)[0]

    @abstractmethod
    def roughness(self) -> Array | None:
        """Roughness penalty (M, M), invariant under the gauge; None where nothing is rough."""

    @abstractmethod
    def prior_jet(self, t: Array, order: int) -> tuple[Array, ...]:
        """Negative log density of the coordinate prior, up to its partition, at (n, d).

        Returns
        -------
        tuple of (n,), (n, d), (n, d, d), (n, d, d, d)
            Value and derivatives up to ``order`` <= 3.
        """

    @abstractmethod
    def log_prior_volume(self) -> float:
        """Log of the integral of exp(-prior) over the coordinates of one row."""

    def rule(self, spacing: Array) -> Rule | None:
        """Quadrature under the coordinate prior; None, unless overridden, where there is none.

        Parameters
        ----------
        spacing : (d,) array
            What the nodes resolve along every coordinate; along arcs, where t lies in a larger
            space. The linear axes are held at zero.

        Returns
        -------
        (G, d) nodes and (G,) logs of weights that sum to one
        """
        return None

    @abstractmethod
    def prior_mean_basis(self) -> Array:
        """Mean of the basis under the coordinate prior, (M,)."""

    def gauge_generators(self) -> Array:
        """R, (g, M, M): B + eps R_a B undoes the move of the coordinates along `gauge_field`.

        There is no continuous symmetry, g = 0, unless the four methods of the gauge are overridden.
        """
        return np.zeros((0, self.basis_size, self.basis_size))

    def gauge_field(self, t: Array) -> Array:
        """Coordinate vector fields of the gauge, (g, n, d)."""
        return np.zeros((0, *t.shape))

    def gauge_move(self, t: Array, c: Array) -> Array:
        """Coordinates (n, d) after unit time along the field sum_a c_a gauge_field_a, c (g,)."""
        return t.copy()

    def log_gauge_volume(self, kept: Sequence[int]) -> float:
        """Log volume of the group of the generators numbered ``kept``, in their metric."""
        return 0.0

    @abstractmethod
    def retract(self, t: Array, step: Array) -> Array:
        """Coordinates (n, d) moved by a tangent step."""

    def log_step_volume(self, t: Array, step: Array) -> Array:
        """Log volume (n,) that `retract` covers, by Lebesgue measure on steps.

        -inf where another step in the region around zero leads to the same point. The integral
        over all steps of exp(log_step_volume(t, step) - prior(retract(t, step))) is
        exp(log_prior_volume), from any t; so the density of a step along a normal is included.
        """
        return np.zeros(len(t))

    @abstractmethod
    def distance(self, t1: Array, t2: Array) -> Array:
        """Geodesic distance (n,)."""

    @abstractmethod
    def grid(self, n: int) -> Array:
        """About n coordinates (n', d) that cover the manifold, or the bulk of its prior.

        They are even in the coordinates: a mean under the prior weighs them by exp(-prior).
        """

    # --- points as columns of a table ----------------------------------------------------------

    @property
    def ambient_names(self) -> tuple[str, ...]:
        """Names of the columns of `ambient`."""
        own: list[str] = []
        for axis in range(self.latent_dim):
            number = str(axis) if self.latent_dim > 1 else ""
            own += ([f"cos{number}", f"sin{number}"] if axis in self.angular_axes
                    else [f"t{number}"])
        return tuple(own)

    def ambient(self, t: Array) -> Array:
        """Points (n, m) in a space where the manifold closes on itself, of coordinates (n, d).

        Cosine and sine of angles; other coordinates as they are.
        """
        columns: list[Array] = []
        for axis in range(self.latent_dim):
            own = t[:, axis]
            columns += [np.cos(own), np.sin(own)] if axis in self.angular_axes else [own]
        return np.column_stack(columns) if columns else np.zeros((len(t), 0))

    def from_ambient(self, x: Array) -> Array:
        """Coordinates (n, d) of the points of the manifold nearest to x (n, m).

        NaN where x has no direction that would tell one.
        """
        columns, at = [], 0
        for axis in range(self.latent_dim):
            if axis in self.angular_axes:
                cos, sin = x[:, at], x[:, at + 1]
                angle = wrap_angle(np.arctan2(sin, cos))
                columns.append(np.where((cos == 0.0) & (sin == 0.0), np.nan, angle))
                at += 2
            else:
                columns.append(x[:, at])
                at += 1
        return np.column_stack(columns) if columns else np.zeros((len(x), 0))

    @abstractmethod
    def to_config(self) -> dict[str, Any]:
        """Dictionary from which `get_manifold` makes the same object."""
