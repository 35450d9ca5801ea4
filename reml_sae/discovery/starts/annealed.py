"""Rows that find their atoms while priors are stiff.

The decoders of a start whose rows use some wrong atoms would bend, and the amplitudes spread, to
explain these rows; stiff ones let the rows find their atoms.
"""

from __future__ import annotations

from reml_sae.discovery.fitting import reassign
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.start import solve_beta, start_psi


def annealed(model: SAEManifoldModel, policy: SearchPolicy) -> SAEManifoldModel:
    """The model after turns of rows and decoders at stiff priors, while rows change their atoms."""
    own = policy.start
    theta, rho = model.initial_theta(), model.initial_rho()
    stiff = {"decoder": own.stiff_decoders, "amplitudes": own.stiff_amplitudes}
    for term in model.terms:
        if term.target in stiff and term.penalty.is_quadratic and not term.is_decoder_size:
            rho[term.where] += stiff[term.target]
    for _ in range(own.stiff_turns):
        theta = solve_beta(model, model.refine_rows(theta, rho, own.stiff_sweeps), rho)
        rho[model.outer.psi] = start_psi(model, theta)
        before = model.active
        model, _ = reassign(model, theta, rho, policy.encode)
        theta = model.initial_theta()
        if (model.active != before).any(axis=1).mean() <= policy.settle.few_moved:
            break
    return model.with_state(theta, rho)
