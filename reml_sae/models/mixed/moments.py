"""First outer parameters of a mixed model, by moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reml_sae.engine import Outer
from reml_sae.errors import InputError
from reml_sae.families import Family
from reml_sae.models.mixed.covariance import Covariance
from reml_sae.models.mixed.design import Design
from reml_sae.models.mixed.smooths import BoundSmooth
from reml_sae.typing import Array

EXPLAINED = 0.5
"""Share of the typical variance of eta that the random effects have at the start."""


def typical_eta(family: Family, design: Design, fixed: Array) -> float:
    """Typical size of what random effects explain, on the scale of eta.

    With an identity link it is what the unpenalised columns ``fixed`` (n, m) leave of the data;
    other links have the scale of eta in themselves.

    Raises
    ------
    InputError
        Where nothing is left.
    """
    if family.link != "identity":
        return 1.0
    target = family.initial_eta(design.y) - design.offset
    rest = target - fixed @ np.linalg.lstsq(fixed, target, rcond=None)[0]
    size = float(np.sqrt(np.mean(rest**2)))
    if size <= 1e-10 * float(np.sqrt(np.mean(target**2))):
        raise InputError("the unpenalised columns of X explain y exactly, so that no variance can "
                         "be estimated; use fewer columns, or more observations")
    return size


@dataclass(frozen=True, eq=False)
class FirstRho:
    """Outer parameters by moments, but for the fixed effects.

    Attributes
    ----------
    covariance, smooths, psi : arrays
        The parts of rho. The random effects have equal shares of their part of the variance of
        eta, and a strength balances the curvatures of data and penalty on its columns, on average.
    """

    covariance: Array
    smooths: Array
    psi: Array

    @classmethod
    def of(
        cls, family: Family, design: Design, terms: Sequence[Covariance],
        smooths: Sequence[BoundSmooth], eta_scale: float,
    ) -> FirstRho:
        """Those of effects with these covariances and of smooths on the columns of a design."""
        share = EXPLAINED / max(design.Z.shape[1], 1)
        covariance = [np.zeros(0), *(term.start(share) for term in terms)]
        psi = np.array(family.initial_psi(design.y), float)
        if family.has_dispersion:
            psi[0] = np.log(eta_scale**2 * (1.0 - EXPLAINED if terms else 1.0))
        box = family.psi_bounds()
        psi = np.clip(psi, box[:, 0], box[:, 1])
        weights = first_weights(family, design.y, psi)
        strengths = []
        for smooth in smooths:
            curvature = weights @ design.X[:, smooth.columns] ** 2
            for S in smooth.matrices:
                balance = curvature[np.diagonal(S) > 0].sum() / np.trace(S)
                strengths.append(np.log(max(balance, 1e-12)))
        return cls(np.concatenate(covariance), np.array(strengths, float), psi)

    def without_fixed(self, outer: Outer) -> Array:
        """The whole of rho, with fixed effects of 0."""
        rho = np.zeros(len(outer))
        rho[outer["covariance"]], rho[outer["smooths"]] = self.covariance, self.smooths
        rho[outer.psi] = self.psi
        return rho


def first_weights(family: Family, y: Array, psi: Array) -> Array:
    """Expected curvature of the loss of every observation at a first guess of eta, (n,)."""
    return family.weight(y, family.initial_eta(y), psi, 0)
