"""Rows that mix several atoms, started from a fit of rows that do not.

A row of a hard partition carries one coordinate, so its fit leaves what the other atoms would
explain in the noise, and that noise hides that they could be resolved. Here every row begins with
all coordinates; rows and decoders take turns at a weak entropy penalty, after which each row keeps
the coordinates that it resolves.
"""

from __future__ import annotations

import numpy as np

from reml_sae.discovery.codes import hard_shares
from reml_sae.discovery.encode import active_set
from reml_sae.discovery.fitting import Fitted
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.starts.protocol import CodeStart
from reml_sae.engine import Theta
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import row_weights, solve_beta, start_psi


def mixed_start(
    fitted: Fitted, start: CodeStart, policy: SearchPolicy
) -> SAEManifoldModel | None:
    """The fit of a start whose rows `may_mix`, with rows that do; None where hardly one does."""
    own, assignment = policy.start, fitted.model.assignment
    rho = fitted.result.rho.copy()
    for term in fitted.model.terms:
        if term.target == "logits":
            rho[term.where] = term.penalty.rho_at(own.mixed_log_sparsity)
    shares = hard_shares(start.labels, len(fitted.model.atoms), own.mixed_share)
    zeta = assignment.start(start.codes.support, shares)
    theta = Theta(np.concatenate([zeta, start.codes.coordinates], axis=1),
                  fitted.model.initial_theta().beta)
    model = fitted.model.with_state(theta, rho, np.ones_like(fitted.model.active))
    for _ in range(own.mixed_turns):
        theta = solve_beta(model, model.refine_rows(theta, rho, own.mixed_sweeps), rho)
        rho[model.outer.psi] = start_psi(model, theta)
    active = active_set(model, theta, rho, policy.encode)
    if (active.sum(axis=1) > 1).mean() < own.mixed_rows:
        return None
    return model.with_state(theta, rho, active)


def may_mix(fitted: Fitted, policy: SearchPolicy) -> bool:
    """Whether rows may mix atoms, and some seem to."""
    model = fitted.model
    return (len(model.atoms) > 1 and model.assignment.is_mixture
            and is_overdispersed(fitted, policy.start.overdispersed))


def is_overdispersed(fitted: Fitted, ratio: float) -> bool:
    """Whether some rows are explained much worse than others, as those that mix atoms would be."""
    model, theta = fitted.model, fitted.result.theta
    residual = model.working - model.scaled_basis(theta)[1] @ theta.beta
    squares = row_weights(model, theta, fitted.result.rho) * (residual**2).sum(axis=1)
    white = 2.0 / residual.shape[1] * squares.mean() ** 2
    return bool(squares.var() > ratio * white)
