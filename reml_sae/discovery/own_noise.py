"""Noise of their own for the rows of each atom, while V falls (`families.noise.PerAtom`).

A search ends with one noise for all rows. From there, with every row on one atom, first for noises
without a shape and then for those of the kind that is asked for:

- the atom whose rows gain most by a noise of their own at the present curves is given one, and the
  next, as long as V falls;
- every atom is searched by its rows alone, with a noise of their own, and kept so where V falls;
- two groups share one again, or a noise becomes simpler, where V falls;
- outer parameters and all noises are polished, and the rows settle on their atoms anew.

So V is never above that of the one noise.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from reml_sae.discovery.alone import Alone, find_alone
from reml_sae.discovery.fitting import Fitted, Settings, lower, rough_fit, stopped
from reml_sae.discovery.metric import TINY, in_metric, posterior_moments
from reml_sae.discovery.polish import polish_noise
from reml_sae.discovery.settle import settle
from reml_sae.families.noise import MARGIN, Factors, Noise, NoiseKind, PerAtom, best_noise, nats
from reml_sae.typing import Array, Index

logger = logging.getLogger("reml_sae")


@dataclass(frozen=True)
class _Moments:
    """What a fit leaves to the noise of each atom.

    Attributes
    ----------
    second : (K, p, p) array
        Posterior second moments, in the units of the data.
    atoms : (N,) array
        The atom of each row.
    """

    second: Array
    atoms: Index

    @classmethod
    def of(cls, fitted: Fitted) -> _Moments:
        model, noise, K = fitted.model, fitted.model.noise, len(fitted.model.atoms)
        apart = PerAtom(tuple(noise.of_atom(k) for k in range(K)),
                        np.array([noise.log_size(k) for k in range(K)]), np.ones(K), np.arange(K))
        atoms = apart.metrics(model.active, np.zeros(len(model.Z), np.intp))
        each = model.with_changes(
            noise=replace(apart, spreads=np.exp(apart.sizes) / noise.decoder_precisions(K)),
            metrics=atoms)
        return cls(posterior_moments(each, fitted.result.theta, fitted.result.rho), atoms)

    def counts(self, groups: Index) -> Index:
        """Rows of each group, (G,)."""
        return np.bincount(groups[self.atoms], minlength=int(groups.max()) + 1)

    def pooled(self, groups: Index) -> Array:
        """Second moments of groups (K,) of atoms, (G, p, p)."""
        rows = np.bincount(self.atoms, minlength=len(groups)).astype(float)
        out = np.zeros((int(groups.max()) + 1, *self.second.shape[1:]))
        np.add.at(out, groups, rows[:, None, None] * self.second)
        return np.asarray(out / np.maximum(self.counts(groups), 1)[:, None, None])


@dataclass(frozen=True)
class _Proposal:
    """Noises of groups of atoms, and what V has of them at the present curves.

    Attributes
    ----------
    noise : PerAtom
    log_dispersion : float
        Log of the geometric mean of the groups' variances, in squared units of the data.
    value : float
        Nats; nan where it was not asked for.
    """

    noise: PerAtom
    log_dispersion: float
    value: float = np.nan

    @classmethod
    def of(cls, moments: _Moments, groups: Index, noises: list[Noise]) -> _Proposal:
        """Of shapes, with their best sizes."""
        counts, second = moments.counts(groups), moments.pooled(groups)
        logs = np.log([max(noise.dispersion(own), TINY)
                       for noise, own in zip(noises, second, strict=True)])
        noise = PerAtom(tuple(noises), logs - logs.mean(), np.ones(len(noises)), groups)
        value = sum(nats(own, moment, int(n))
                    for own, moment, n in zip(noises, second, counts, strict=True))
        return cls(noise, float(logs.mean()), value + noise.rows_cost(groups[moments.atoms]))

    @classmethod
    def best(cls, moments: _Moments, groups: Index, kind: NoiseKind) -> _Proposal:
        """Of the best shapes of a kind."""
        pairs = zip(moments.pooled(groups), moments.counts(groups), strict=True)
        return cls.of(moments, groups, [best_noise(kind, own, int(n)) for own, n in pairs])


def own_noises(fitted: Fitted, settings: Settings, rng: np.random.Generator) -> Fitted:
    """The fit, or one in which atoms have noises of their own, with a lower V.

    Noises without a shape come first: one with a shape can hold what its atom would explain.
    """
    model = fitted.model
    if len(model.atoms) == 1 or fitted.result.interrupted:
        return fitted
    assert isinstance(model.noise, Noise)
    present = Fitted(model.with_changes(noise=PerAtom.alike(model.noise, len(model.atoms))),
                     fitted.result)
    for kind in dict.fromkeys(("isotropic", settings.noise)):
        if _may_go_on(present, settings):
            present = _in_rounds(present, replace(settings, noise=kind), rng)
    if present.model.noise.n_metrics > 1:
        return present
    return stopped(fitted, present.result.status) if present.result.interrupted else fitted


def _in_rounds(fitted: Fitted, settings: Settings, rng: np.random.Generator) -> Fitted:
    """Rough fits in other noises, and then by REML as rows settle on their atoms, while V falls."""
    policy, present = settings.policy.noise, fitted
    for number in range(policy.most_rounds):
        rough = _round(present, settings, None if number else rng)
        if rough is None:
            break
        trial = rough if rough.result.interrupted else settle(rough, settings)
        fall = present.result.criterion - trial.result.criterion
        if trial.result.interrupted or not fall > policy.least_fall:
            return lower(present, trial)
        present = trial
    return present


def _round(
    fitted: Fitted, settings: Settings, rng: np.random.Generator | None
) -> Fitted | None:
    """A rough fit with other noises and a lower V; None where there is none.

    With a generator atoms are searched by their rows alone, too.
    """
    start = rough_fit(fitted.model.with_state(fitted.result.theta, fitted.result.rho), settings,
                      "present noise")  # by the curvature of all rough fits
    if start is None:
        return None
    present = _freed(start, settings)
    if rng is not None:
        present = _refound(present, settings, rng)
    present = _simplified(present, settings)
    if present.model.noise.n_metrics > 1 and _may_go_on(present, settings):
        trial = polish_noise(present, settings)
        present = present if trial is None else lower(present, trial)
    return None if present is start else present


def _freed(fitted: Fitted, settings: Settings) -> Fitted:
    """Atoms given noises of their own, one after the other, while V falls."""
    present = _turned(fitted, settings)
    failed: set[int] = set()
    while _may_go_on(present, settings):
        moments, groups = _Moments.of(present), _noise(present).groups
        base = _Proposal.best(moments, groups, settings.noise).value
        options = {k: _Proposal.best(moments, own, settings.noise)
                   for k, own in _with_one_apart(groups) if k not in failed
                   and (moments.atoms == k).sum() > present.model.atoms[k].basis_size}
        if not options:
            break
        k = min(options, key=lambda k: options[k].value)
        if base - options[k].value < settings.policy.noise.least_gain:
            break
        logger.info("noise of atom %d alone: better by %.3f nats", k, base - options[k].value)
        trial = _fit(present, options[k], settings)
        better = present if trial is None else lower(present, _turned(trial, settings))
        failed = {*failed, k} if better is present else set()
        present = better
    return present


def _with_one_apart(groups: Index) -> Iterator[tuple[int, Index]]:
    """Every atom that shares its noise, and the groups in which it does not."""
    for k, group in enumerate(groups):
        if (groups == group).sum() > 1:
            yield k, np.where(np.arange(len(groups)) == k, groups.max() + 1, groups)


def _refound(fitted: Fitted, settings: Settings, rng: np.random.Generator) -> Fitted:
    """Every atom by its rows alone, in a noise of their own, where V falls."""
    present = fitted
    for k in range(len(fitted.model.atoms)):
        if not _may_go_on(present, settings):
            break
        found = find_alone(present, k, settings, rng)
        if found is None:
            continue
        placed = Fitted(present.model, replace(present.result, theta=found.theta))
        trial = _fit(placed, _with_alone(present, k, found), settings)
        if trial is not None:
            logger.info("atom %d by its rows alone: V = %.4f", k, trial.result.criterion)
            present = lower(present, _turned(trial, settings))
    return present


def _with_alone(fitted: Fitted, k: int, found: Alone) -> _Proposal:
    """The present noises with one of its own for atom k."""
    model, present = fitted.model, _noise(fitted)
    phi = model.unit**2 * model.family.dispersion(fitted.result.rho[model.outer.psi])
    groups = dict(_with_one_apart(present.groups)).get(k, present.groups)
    firsts = [int(np.flatnonzero(groups == g)[0]) for g in range(groups.max() + 1)]
    logs = np.log([max(found.variance, TINY) if j == k else phi * np.exp(present.log_size(j))
                   for j in firsts])
    noises = tuple(found.noise if j == k else present.of_atom(j) for j in firsts)
    return _Proposal(PerAtom(noises, logs - logs.mean(), np.ones(len(logs)), groups),
                     float(logs.mean()))


def _turned(fitted: Fitted, settings: Settings) -> Fitted:
    """Rough fits in the noises that the last one leaves, while V falls."""
    policy, present = settings.policy.noise, fitted
    for _ in range(policy.most_turns):
        if not _may_go_on(present, settings):
            break
        moments, noise = _Moments.of(present), _noise(present)
        proposal = _Proposal.best(moments, noise.groups, settings.noise)
        if _Proposal.of(moments, noise.groups, list(noise.noises)).value - proposal.value < (
                policy.least_gain):
            break
        trial = _fit(present, proposal, settings)
        before = present
        present = present if trial is None else lower(present, trial)
        if before.result.criterion - present.result.criterion < policy.least_fall:
            break
    return present


def _simplified(fitted: Fitted, settings: Settings) -> Fitted:
    """The fit with groups that share a noise again, or with simpler noises, while V falls."""
    present, changed = fitted, True
    while changed:
        changed = False
        moments = _Moments.of(present)
        for proposal in _simpler(_noise(present), moments, settings.noise):
            if not _may_go_on(present, settings):
                return present
            trial = _fit(present, proposal, settings)
            better = present if trial is None else lower(present, _turned(trial, settings))
            if better is not present:
                present, changed = better, True
                break
    return present


def _simpler(noise: PerAtom, moments: _Moments, kind: NoiseKind) -> Iterator[_Proposal]:
    """Noises of one group less that lose little, and those with a simpler shape in one group."""
    present = _Proposal.of(moments, noise.groups, list(noise.noises)).value
    for first, second in combinations(range(noise.n_metrics), 2):
        groups = np.where(noise.groups == second, first, noise.groups)
        proposal = _Proposal.best(moments, np.unique(groups, return_inverse=True)[1], kind)
        if proposal.value < present + MARGIN:
            yield proposal
    for g, own in enumerate(noise.noises):
        simpler = own.simpler()
        if simpler is not None and not isinstance(kind, Factors):
            yield _Proposal.of(
                moments, noise.groups, [*noise.noises[:g], simpler, *noise.noises[g + 1:]])


def _fit(fitted: Fitted, proposal: _Proposal, settings: Settings) -> Fitted | None:
    """A rough fit in other noises."""
    model, rho = fitted.model, fitted.result.rho.copy()
    place = model.outer.dispersion
    assert place is not None
    rho[place] = proposal.log_dispersion - 2.0 * np.log(model.unit)
    changed = in_metric(model, fitted.result.theta, proposal.noise)
    return rough_fit(changed.with_changes(rho=model.outer.clip(rho)), settings, "own noises")


def _noise(fitted: Fitted) -> PerAtom:
    noise = fitted.model.noise
    assert isinstance(noise, PerAtom)
    return noise


def _may_go_on(fitted: Fitted, settings: Settings) -> bool:
    return not (fitted.result.interrupted or settings.deadline.passed)
