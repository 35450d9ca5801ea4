"""Fits in the metric of the noise that they leave, while V falls.

Given a fit, the best noise is that of the posterior second moment of what its curves do not explain
(dV / dOmega = 0 at fixed rows and decoders); a fit in its metric has another moment. V judges each
turn, what the noise's own parameters cost included.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings, lower, rough_fit
from reml_sae.discovery.metric import posterior_moment, whitened_model
from reml_sae.discovery.polish import polish_noise
from reml_sae.discovery.settle import settle
from reml_sae.families.noise import MARGIN, Factors, Noise, best_noise, charged, held_kind
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")


def follow_noise(fitted: Fitted, settings: Settings) -> Fitted:
    """The fit, or one by REML in the metric of another noise with a lower V."""
    if settings.noise == "isotropic" or fitted.result.interrupted:
        return fitted
    turned = _simplified(turn_noise(fitted, settings), settings)
    rough = _polished(turned, settings)
    if rough is fitted:
        return fitted
    final = rough if rough.result.interrupted else settle(rough, settings)
    if not (final.result.converged or final.result.interrupted or rough is turned):
        # V of rows that no curve describes has creases, to which the noise can be polished
        other = turned if turned is fitted else settle(turned, settings)
        ahead = other.result.criterion - final.result.criterion
        final = other if other.result.converged and ahead <= MARGIN else final
    ahead = final.result.criterion - fitted.result.criterion
    fewer = len(final.rows.noise.parameters()) < len(fitted.rows.noise.parameters())
    return final if fewer and ahead <= MARGIN else lower(fitted, final)


def turn_noise(fitted: Fitted, settings: Settings, goal: float = np.inf) -> Fitted:
    """Rough fits in the metric of the noise that the last one leaves, while V falls.

    Where falls that shrink as the last ones did would not lead to the goal in sight, no more are
    tried.
    """
    if settings.noise == "isotropic":
        return fitted
    policy, present, last = settings.policy.noise, fitted, np.inf
    for _ in range(policy.most_turns):
        trial = None
        if not (present.result.interrupted or settings.deadline.passed):
            trial = _next(present, settings)
        if trial is None:
            break
        fall = present.result.criterion - trial.result.criterion
        present = lower(present, trial)
        # falls shrink by a factor that grows along the way: its root is on the safe side
        shrunk = np.sqrt(max(fall / last, 0.0)) if last < np.inf else policy.slowest
        rate = min(shrunk, policy.slowest)
        ahead = fall * rate / (1.0 - rate)
        if fall < policy.least_fall or ahead < present.result.criterion - goal:
            break
        last = fall
    return present


def _polished(fitted: Fitted, settings: Settings) -> Fitted:
    """The fit with rho and its noise at their optimum, and the noise that it then leaves."""
    present = fitted
    for _ in range(settings.policy.noise.most_rounds):
        trial = None
        if not (present.result.interrupted or settings.deadline.passed):
            trial = polish_noise(present, settings)
        if trial is None:
            break
        before, present = present, lower(present, turn_noise(trial, settings))
        if before.result.criterion - present.result.criterion < settings.policy.noise.least_gain:
            break
    return present


def _simplified(fitted: Fitted, settings: Settings) -> Fitted:
    """The fit with simpler noise, as long as V is hardly higher.

    A factor that the curves could explain may hold itself: it is in the noise from which they and
    the next noise follow. So what is simpler is held while the fit follows. What loses more at
    the present curves than a rough fit wins back is not tried.
    """
    present, lowest = fitted, fitted.result.criterion
    while not (present.result.interrupted or settings.deadline.passed
               or isinstance(settings.noise, Factors)):
        noise, second, n = present.rows.noise.simpler(), _moment(present), len(present.model.Z)
        if noise is None:
            break
        held = replace(settings, noise=held_kind(noise, settings.noise))
        noise = best_noise(held.noise, second, n)
        lost = charged(noise, second, n) - charged(present.rows.noise, second, n)
        if lost > settings.policy.move.within_per_row * n:
            break
        trial = _fit(present, noise, second, settings)
        if trial is None:
            break
        trial = turn_noise(trial, held, lowest + MARGIN)
        if trial.result.criterion > lowest + MARGIN:
            break
        present, lowest = trial, min(lowest, trial.result.criterion)
    return present


def _next(fitted: Fitted, settings: Settings) -> Fitted | None:
    """A rough fit in the metric of the best noise; None where that is hardly better."""
    noise, second, gain = better_noise(fitted, settings)
    logger.info("%s noise is better by %.3f nats than %s", noise.kind, gain,
                fitted.model.noise.kind)
    if gain < settings.policy.noise.least_gain:
        return None
    return _fit(fitted, noise, second, settings)


def leaves_nothing(fitted: Fitted, settings: Settings) -> bool:
    """Whether so little is left to white noise that it is what curves miss: that has a shape."""
    phi = fitted.model.outer.dispersion
    return (phi is not None and fitted.rows.noise.kind == "isotropic"
            and np.exp(fitted.result.rho[phi]) < settings.policy.noise.nothing)


def better_noise(fitted: Fitted, settings: Settings) -> tuple[Noise, Array, float]:
    """The best noise for what a fit leaves, that (p, p), and the nats that it gains there."""
    present, n, second = fitted.rows.noise, len(fitted.model.Z), _moment(fitted)
    noise = best_noise(settings.noise, second, n)
    return noise, second, charged(present, second, n) - charged(noise, second, n)


def _moment(fitted: Fitted) -> Array:
    """Posterior second moment (p, p) of the noise that a fit leaves."""
    return posterior_moment(fitted.model, fitted.result.theta, fitted.result.rho)


def _fit(fitted: Fitted, noise: Noise, second: Array, settings: Settings) -> Fitted | None:
    """A rough fit in the metric of a noise, from the second moment of what is now left."""
    changed = whitened_model(fitted.model, fitted.result.theta, fitted.result.rho, noise, second)
    return rough_fit(changed, settings, f"{noise.kind} noise")
