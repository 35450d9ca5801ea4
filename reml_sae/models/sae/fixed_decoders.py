"""An SAE-manifold whose decoders are held: the inner problem of encoding rows that couple.

Rows that no penalty couples are encoded one by one (`SAEManifoldModel.refine_rows`). Where one
does, they are solved together by the same damped Newton solve as the fit, with a border that has
no gradient, no coupling and unit curvature.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reml_sae.engine.protocol import Theta
from reml_sae.linalg import Factor
from reml_sae.models.sae.model import SAEManifoldModel
from reml_sae.models.sae.point import SAEPoint
from reml_sae.typing import Array


class FixedDecoders:
    """What `solve_inner` asks of a model, with beta held.

    Parameters
    ----------
    model : SAEManifoldModel
    """

    def __init__(self, model: SAEManifoldModel):
        self.model = model
        self.initial_theta = model.initial_theta
        self.objective = model.joint_objective
        self.retract = model.retract
        self.merge_rows = model.merge_rows
        self.refine_rows = model.refine_rows

    def at(self, theta: Theta, rho: Array) -> FixedPoint:
        """The model at a state and outer parameters."""
        return FixedPoint(SAEPoint(self.model, theta, rho))


class FixedPoint:
    """One point of `FixedDecoders`."""

    factor_is_costly = False

    def __init__(self, point: SAEPoint):
        self.point = point
        self.theta, self.rho, self.objective = point.theta, point.rho, point.objective

    def gradient(self) -> Theta:
        """Gradient of F in xi, and zero."""
        return Theta(self.point.gradient().xi, np.zeros_like(self.theta.beta))

    def hvp(self, v: Theta) -> Theta:
        """Exact Hessian in xi times v, and v itself in the border."""
        rows = self.point.hvp(Theta(v.xi, np.zeros_like(v.beta))).xi
        return Theta(rows, v.beta)

    def factorize(self, damping: float = 0.0) -> Factor:
        """Factor of the rows' curvature with a unit border."""
        matrix = self.point.curvature(damping)
        (n, q, _), (m, p) = matrix.rows.shape, self.theta.beta.shape
        return replace(
            matrix, features=np.zeros((n, m)), jacobians=np.zeros((n, q, 0)),
            span=np.zeros((p, 0)), gram=np.eye(m), border_columns=np.zeros((0, m, 0)),
            dense_border=np.zeros((0, 0))).factorize()
