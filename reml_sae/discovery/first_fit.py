"""From standardised data to a rough fit: all starts, fitted roughly and ranked by V.

Clusters of rows on one atom each are carried on by a search among the atoms, and only the best of
its ends are fitted. Of other starts those that explain much less than another are passed over, as
are partitions that differ from another in fewer rows than move when a fit settles; where rows seem
to mix several atoms, starts of mixed assignments compete with the best. Where the best leaves noise
that has a shape, starts that expect such noise compete as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    model_in_own_noise,
    rough_fit,
    stopped,
    working_scale,
)
from reml_sae.discovery.follow_noise import turn_noise
from reml_sae.discovery.metric import MetricRows, without_atoms
from reml_sae.discovery.starts.annealed import annealed
from reml_sae.discovery.starts.mixed import may_mix, mixed_start
from reml_sae.discovery.starts.protocol import CodeStart, StartProblem
from reml_sae.discovery.starts.registry import (
    AMID_NOISE,
    AMONG_ATOMS,
    SEEDS,
    STARTS,
    find_code_starts,
)
from reml_sae.engine import InnerStatus, OuterStatus
from reml_sae.errors import InnerConvergenceError
from reml_sae.families.noise import Factor, Factors, NoiseKind, OneOf, best_noise
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array

logger = logging.getLogger("reml_sae")


def fit_starts(
    rows: MetricRows, atoms: Sequence[Manifold], settings: Settings, rng: np.random.Generator,
    known: Fitted | None = None, until: Callable[[Fitted], bool] | None = None,
) -> Fitted:
    """The best of several starts, fitted roughly and ranked by V.

    Parameters
    ----------
    known : Fitted, optional
        The best of those that expect no noise of a shape: they are not made again where curves
        amid noise are found beyond doubt.
    until : callable, optional
        Of one curve: no more starts are fitted after one of which this is true.

    Raises
    ------
    InnerConvergenceError
        Where no start leads to a usable state.
    """
    policy = settings.policy
    settings.stages.enter("looking for starts")
    problem = _problem(rows.Z, atoms, settings)
    starts: list[CodeStart] = []
    clusters: list[CodeStart] = []
    rough: list[tuple[Fitted, CodeStart]] = []
    halt = None
    if known is not None and problem.tells_curves:
        starts = _starts_amid_noise(problem, [CodeStart(known.codes, None)], rows, settings, rng)
        rough, halt = _fit_all(rows, atoms, settings, starts)
    if halt is None and not (rough and any(start.sure for start in starts)):
        clusters = find_code_starts(problem, rng, STARTS)
        plain = _told_by_shapes(problem, clusters, rng)
        one_curve = len(atoms) == 1 and problem.tells_curves
        more, halt = _fit_all(rows, atoms, settings, plain, _lowest(rough),
                              until if one_curve else None)
        rough += more
        if halt is None and not starts and _is_shaped(rough, rows, settings):
            for own in _noises_apart(problem, settings):
                more, halt = _fit_all(rows, atoms, own, _starts_amid_noise(
                    problem, plain, rows, own, rng), _lowest(rough))
                rough += more
                if halt is not None:
                    break
        starts += plain
        clusters = [] if plain is clusters else clusters
    if not rough:
        raise InnerConvergenceError(
            f"none of the {len(starts)} starts reached a usable state; try other atoms, fewer "
            "atoms or a larger n_init"
        )
    begun, mixing = _best(rough), list[tuple[Fitted, CodeStart]]()
    best = replace(begun[0], tries=begun[1].tries)
    if halt is None and may_mix(best, policy):
        # curves told from each other as if rows had one each are bent after those that mix them
        more, halt = _fit_all(rows, atoms, settings, clusters)
        others = [_best(more)] if more else []
        mixing = [begun, *(pair for pair in others if may_mix(pair[0], policy))]
    for found, start in mixing:
        mixed = None if halt is not None else mixed_start(found, start, policy)
        soft = None if mixed is None else rough_fit(
            mixed, settings, "mixed start", max_inner=policy.start.mixed_steps)
        if soft is not None:
            halt = _halt(soft, settings)
            if soft.result.inner.status is not InnerStatus.MAX_ITER:  # V is that of a mode
                best = min(best, soft, key=lambda fit: fit.result.criterion)
    return best if halt is None else stopped(best, halt)


def _fit_all(
    rows: MetricRows, atoms: Sequence[Manifold], settings: Settings, starts: Sequence[CodeStart],
    goal: float = np.inf, until: Callable[[Fitted], bool] | None = None,
) -> tuple[list[tuple[Fitted, CodeStart]], OuterStatus | None]:
    """Rough fits from starts, each in the metric of its noise; and why no more are to be tried."""
    assignment, policy = settings.assign(len(atoms)), settings.policy
    rough: list[tuple[Fitted, CodeStart]] = []
    most = max((start.explained for start in starts if start.explained is not None), default=0.0)
    partition = len(atoms) > 1 and (assignment.is_mixture or assignment.most_active == 1)
    for number, start in enumerate(starts):
        if partition and start.explained is not None and any(
                _same_rows(start, other, len(atoms)) > policy.start.same_rows
                for _, other in rough):
            logger.info("start %d was skipped: its atoms have the rows of another's", number)
            continue
        if (start.explained is not None
                and 1.0 - start.explained > policy.start.unexplained * (1.0 - most)):
            logger.info("start %d was skipped: it explains %.4f of the variance, another %.4f",
                        number, start.explained, most)
            continue
        settings.stages.enter("start", number + 1, len(starts))
        model = model_in_own_noise(rows, atoms, settings, start.codes, second=start.noise)
        if assignment.chooses_support and len(atoms) > 1 and assignment.most_active > 1:
            model = annealed(model, policy)
        fitted = rough_fit(model, settings, f"start {number}")
        if fitted is not None:
            rough.append((fitted, start))
            halt = _halt(fitted, settings)
            if halt is not None:
                return rough, halt
            if until is not None and until(fitted):
                break
    return (rough, None) if settings.noise == "isotropic" else _turned(rough, settings, goal)


def _same_rows(start: CodeStart, other: CodeStart, n_atoms: int) -> float:
    """Share of the rows of an atom in either of two partitions that it has in both; the least."""
    both = [(start.labels == k, other.labels == k) for k in range(n_atoms)]
    return min(float((one & two).sum() / max((one | two).sum(), 1)) for one, two in both)


def _turned(
    rough: Sequence[tuple[Fitted, CodeStart]], settings: Settings, goal: float
) -> tuple[list[tuple[Fitted, CodeStart]], OuterStatus | None]:
    """Rough fits in the noise that they leave, the lowest first: it is the goal of the others."""
    found: list[tuple[Fitted, CodeStart]] = []
    before = -np.inf
    ranked = sorted(rough, key=lambda pair: pair[0].result.criterion)
    for number, (fitted, start) in enumerate(ranked):
        settings.stages.enter("noise of start", number + 1, len(ranked))
        if fitted.result.criterion - before < settings.policy.start.same:
            logger.info("a start has come to where another was")
            continue
        before = fitted.result.criterion
        fitted = turn_noise(fitted, settings, min(goal, _lowest(found)))
        found.append((fitted, start))
        halt = _halt(fitted, settings)
        if halt is not None:
            return found, halt
    return found, None


def _lowest(rough: Sequence[tuple[Fitted, CodeStart]]) -> float:
    """The lowest V, infinite where there is none."""
    return min((fitted.result.criterion for fitted, _ in rough), default=np.inf)


def _best(rough: Sequence[tuple[Fitted, CodeStart]]) -> tuple[Fitted, CodeStart]:
    return min(rough, key=lambda pair: pair[0].result.criterion)


def _is_shaped(
    rough: Sequence[tuple[Fitted, CodeStart]], rows: MetricRows, settings: Settings
) -> bool:
    """Whether the noise may have a shape: the best fit leaves one, or is beaten by it alone."""
    if settings.noise == "isotropic":
        return False
    return (not rough or _best(rough)[0].rows.noise.simpler() is not None
            or noise_alone_is_better(_lowest(rough), rows, settings))


def noise_alone_is_better(value: float, rows: MetricRows, settings: Settings) -> bool:
    """Whether noise of a shape has a V so far below that of a rough fit that it may stay there."""
    ahead = settings.policy.start.alone_per_row * len(rows.Z)
    return without_atoms(rows, settings.noise) < value - ahead


def _problem(Z: Array, atoms: Sequence[Manifold], settings: Settings) -> StartProblem:
    return StartProblem(working_scale(Z, settings), atoms, settings.assign(len(atoms)),
                        settings.n_init, settings.policy, sizes_open=settings.sizes_open,
                        deadline=settings.deadline)


def _told_by_shapes(
    problem: StartProblem, clusters: list[CodeStart], rng: np.random.Generator
) -> list[CodeStart]:
    """Where a search among atoms leads from clusters of rows; these, where they are sure."""
    if any(start.sure for start in clusters):
        return clusters
    return find_code_starts(replace(problem, seeds=clusters), rng, AMONG_ATOMS) or clusters


def _starts_amid_noise(
    problem: StartProblem, found: Sequence[CodeStart], rows: MetricRows, settings: Settings,
    rng: np.random.Generator,
) -> list[CodeStart]:
    """Starts that expect noise of a shape.

    From those that do not, and from those of rows in a metric in which all that varies together is
    noise: an atom that is small beside the noise is seen there.
    """
    X = problem.Z
    everything = best_noise(settings.noise, X.T @ X / len(X), len(X))
    white = None
    if everything.simpler() is not None and not settings.deadline.passed:
        white = _problem(rows.whitened(everything).Z, problem.atoms, settings)
    if problem.tells_curves:
        more = [] if white is None else find_code_starts(white, rng, SEEDS)
        problem = replace(problem, seeds=[*found, *more])
    starts = find_code_starts(problem, rng, AMID_NOISE)
    if white is not None and not any(start.sure for start in starts):
        starts += find_code_starts(white, rng, STARTS)
    return [replace(start, explained=None) for start in starts]


def _noises_apart(problem: StartProblem, settings: Settings) -> list[Settings]:
    """The settings, or one for each noise that could be beside a flat.

    Factors can hold all that one flat holds, and no fit that begins so leaves another noise.
    """
    if not (problem.is_one_flat and isinstance(settings.noise, OneOf)):
        return [settings]
    kinds: list[NoiseKind] = [replace(settings.noise, kinds=(kind,))
                              for kind in settings.noise.kinds if kind != "isotropic"]
    everything = best_noise(settings.noise, problem.Z.T @ problem.Z / len(problem.Z),
                            len(problem.Z))
    if isinstance(everything, Factor) and everything.rank > problem.dims[0]:
        kinds.append(Factors(everything.rank - problem.dims[0]))
    return [replace(settings, noise=kind) for kind in kinds]


def _halt(fitted: Fitted, settings: Settings) -> OuterStatus | None:
    """Why nothing more is to be tried after this fit; None where it may be."""
    if fitted.result.interrupted:
        return fitted.result.status
    return settings.deadline.status if settings.deadline.passed else None
