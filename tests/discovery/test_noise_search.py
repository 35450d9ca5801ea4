"""The search with noise that may have a shape: which starts, which noise, and the exact slope."""

from dataclasses import replace

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_manifolds
from reml_sae.discovery import first_fit, follow_noise, search
from reml_sae.discovery.fitting import Settings, rough_fit
from reml_sae.discovery.local import least_gaussian
from reml_sae.discovery.metric import MetricRows, central_weights, in_metric
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.polish import noise_gradient
from reml_sae.discovery.starts.amid_noise import NoiseMixtureStart
from reml_sae.discovery.starts.protocol import StartProblem
from reml_sae.engine import OuterStatus, criterion
from reml_sae.estimators._validation import default_terms
from reml_sae.families import Gaussian, StudentTRows
from reml_sae.families.noise import Diagonal, Factor, Factors, OneOf
from reml_sae.manifolds import Circle, Sphere
from tests.models.sae.systems import at_mode, by_quadrature


def with_factors(plant, sds, seed):
    """The planted rows with noise of these standard deviations along random directions."""
    rng = np.random.default_rng(seed)
    n, p = plant.Z.shape
    frame = np.linalg.qr(rng.normal(size=(p, len(sds))))[0]
    return plant.Z + (rng.normal(size=(n, len(sds))) * sds) @ frame.T


@pytest.mark.parametrize(("name", "integration", "kind", "unequal"), [
    ("ellipse", "laplace", "diagonal", False), ("ellipse", "quadrature", "factor", False),
    ("two-circles", "laplace", "factor", False), ("topk-pair", "laplace", "factor", False),
    ("topk-apart", "quadrature", "diagonal", False), ("ellipse", "quadrature", "diagonal", True),
    ("two-circles", "laplace", "factor", True)])
def test_slope_of_the_criterion_in_the_noise(name, integration, kind, unequal):
    """Against differences of V with the inner problem solved again, the unit of the rows moved."""
    base = at_mode(name, build_model=by_quadrature if integration == "quadrature" else None)
    if unequal:
        family = StudentTRows(df=5.0)
        base = base.with_changes(family=family, unit_weights=central_weights(base.Z, family))
    p, theta, rng = base.shape[1], base.initial_theta(), np.random.default_rng(0)
    noise = (Factor(np.linalg.qr(rng.normal(size=(p, 2)))[0], np.array([2.0, 1.5]),
                    np.array([2.2, 1.4]), np.ones(p - 2))
             if kind == "factor" else Diagonal(np.array([0.3, -0.3, 0.1, -0.1, 0.0]), 0.5))
    x, h = noise.parameters(), 1e-3
    model, rho = in_metric(base, theta, noise.at(x)), base.rho + 0.1
    found = noise_gradient(model, x, criterion(model, rho, tol=1e-12), "majorizer")
    step = rng.normal(size=len(x))
    ahead, back, far, before = (
        criterion(in_metric(base, theta, noise.at(x + k * h * step)), rho, gradient=False,
                  tol=1e-12).value for k in (1, -1, 2, -2))
    slope = (8.0 * (ahead - back) - (far - before)) / (12.0 * h)
    assert abs(found @ step - slope) < 1e-7 * np.linalg.norm(found)


def test_no_flat_is_better_than_the_best_gaussian():
    for seed in range(5):
        Z = planted_manifolds(80, 4, ["plane"], noise_sd=0.3, random_state=seed).Z
        Z = Z - Z.mean(axis=0)
        for noise in ("isotropic", "diagonal", "factor"):
            fit = rs.SAEManifold(n_atoms=1, topology="plane", noise=noise, n_init=1).fit(Z)
            assert least_gaussian(Z) < fit.criterion_


def test_starts_that_expect_a_shape_are_made_where_there_is_one(monkeypatch):
    made = []

    def counted(*arguments):
        made.append(1)
        return []

    monkeypatch.setattr(first_fit, "_starts_amid_noise", counted)
    plant = planted_manifolds(200, 6, ["circle"], noise_sd=0.2, random_state=0)
    model = rs.SAEManifold(n_atoms=1, topology=Circle(1), noise="auto", n_init=1).fit(plant.Z)
    assert not made
    model.fit(with_factors(plant, [2.5, 1.5], 1))
    assert made


def test_the_fit_without_a_shape_is_handed_on(monkeypatch):
    """Starts are fitted once without and once with noise of a shape; none a third time."""
    made, honest = [], search.fit_starts

    def counted(rows, atoms, settings, rng, *known, **more):
        made.append(settings.noise)
        return honest(rows, atoms, settings, rng, *known, **more)

    monkeypatch.setattr(search, "fit_starts", counted)
    plant = planted_manifolds(200, 6, ["circle"], noise_sd=0.2, random_state=0)
    rs.SAEManifold(n_atoms=1, topology="circle", noise="factor", n_init=1).fit(
        with_factors(plant, [2.5, 1.5], 1))
    assert made == ["isotropic", OneOf(("factor",))]


def test_rows_of_a_noise_mixture_begin_at_amplitude_one():
    """Whatever the length of their scores, which is mostly noise."""
    plant = planted_manifolds(200, 6, ["circle"] * 2, noise_sd=0.2, random_state=0)
    problem = StartProblem(plant.Z - plant.Z.mean(axis=0), [Circle(), Circle()],
                           get_assignment("topk", 2, n_active=1), 1, SearchPolicy())
    starts = NoiseMixtureStart().propose(problem, np.random.default_rng(0))
    assert starts
    for start in starts:
        assert (start.codes.amplitudes == start.codes.support).all()


def test_isotropic_noise_is_not_passed_over(monkeypatch):
    """Whatever noise the search has come to, its V is not above that of the isotropic one."""
    plant = planted_manifolds(200, 6, ["circle"], noise_sd=0.2, random_state=0)
    plain = rs.SAEManifold(n_atoms=1, n_init=1, random_state=0).fit(plant.Z)
    wrong = Factor(np.linalg.qr(plant.frames[0].T)[0][:, :1], np.array([30.0]),
                   np.array([30.0]), np.ones(5))
    honest = search.follow_noise

    def misled(fitted, settings):
        if fitted.result.trace.n_counted > 3 and settings.noise != "isotropic" and not misled.done:
            misled.done = True
            model = in_metric(fitted.model, fitted.result.theta, wrong)
            return rough_fit(model, settings, "misled")
        return honest(fitted, settings)

    misled.done = False
    monkeypatch.setattr(search, "follow_noise", misled)
    fit = rs.SAEManifold(n_atoms=1, n_init=1, random_state=0, noise="auto").fit(plant.Z)
    assert misled.done
    assert fit.criterion_ == pytest.approx(plain.criterion_, abs=1e-3)


@pytest.mark.parametrize(("weaker", "rank"), [(0.15, 1), (1.5, 2)])
def test_fewer_factors_are_held_while_they_are_tried(weaker, rank, monkeypatch):
    """Else what is left of one that the curve could explain brings it back at the next turn.

    Without one that is far from that they are not tried at all.
    """
    plant = planted_manifolds(150, 6, ["circle"], noise_sd=0.2, random_state=0)
    honest, held = follow_noise.turn_noise, []

    def turned(fitted, settings, goal=np.inf):
        found = honest(fitted, settings, goal)
        held.append((settings.noise, getattr(found.rows.noise, "rank", 0)))
        return found

    monkeypatch.setattr(follow_noise, "turn_noise", turned)
    fit = rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, noise="factor").fit(
        with_factors(plant, np.array([2.0, weaker]), 0))
    assert fit.noise_.rank == rank
    tried = [found for kind, found in held if kind == Factors(1)]
    assert set(tried) == ({1} if rank == 1 else set())


@pytest.mark.parametrize("seed", range(2))
def test_more_factors_than_an_atom_has_leading_scores(seed):
    rank = SearchPolicy().topology.most_columns + 2
    plant = planted_manifolds(60, 30, ["circle"], noise_sd=0.1, random_state=seed)
    Z = with_factors(plant, np.full(rank, 0.5), seed)
    model = rs.SAEManifold(n_atoms=1, noise={"kind": "factor", "rank": rank}, n_init=1).fit(Z)
    assert model.noise_.rank == rank


@pytest.mark.filterwarnings("ignore::reml_sae.errors.DataWarning")
@pytest.mark.parametrize(("held", "seed"), [
    ("diagonal", 0), ("diagonal", 1), ({"kind": "factor", "rank": 1}, 0)])
def test_a_flat_amid_noise_has_the_lowest_V(held, seed):
    """Not the factors that would hold all that it does, and leave no other noise beside it."""
    plant = planted_manifolds(150, 6, ["plane"], noise_sd=0.0, random_state=seed)
    noise = np.random.default_rng(seed).normal(size=plant.Z.shape) * np.geomspace(0.08, 0.8, 6)
    Z = (plant.signal + noise if held == "diagonal" else with_factors(plant, [2.5], seed)
         + 0.2 * noise / np.geomspace(0.08, 0.8, 6))
    asked = {"n_atoms": 1, "topology": "plane", "n_init": 1}
    known = rs.SAEManifold(noise=held, **asked).fit(Z)
    found = rs.SAEManifold(noise="auto", **asked).fit(Z)
    assert found.noise_.kind == known.noise_.kind
    assert found.criterion_ <= known.criterion_ + 0.1


def test_no_more_starts_than_it_takes():
    plant = planted_manifolds(80, 4, ["sphere"], noise_sd=0.2, random_state=1)
    rows, atoms = MetricRows.isotropic(plant.Z - plant.Z.mean(axis=0)), [Sphere()]
    chosen = get_assignment("softmax", 1)
    settings = Settings(
        bind=lambda atoms: default_terms(atoms, chosen), assign=lambda k: chosen,
        curvature="majorizer", max_outer=1, tol=1e-6, n_init=3, callbacks=(),
        family=Gaussian(), offset=np.zeros(4))

    def seen(enough):
        met = []

        def until(fitted):
            met.append(fitted.result.criterion)
            return enough

        first_fit.fit_starts(rows, atoms, settings, np.random.default_rng(0), until=until)
        return len(met)

    assert seen(True) == 1
    assert seen(False) > 1


def test_a_polish_that_does_not_converge_is_left_for_a_fit_that_does(monkeypatch):
    plant = planted_manifolds(150, 8, ["circle"], noise_sd=0.2, random_state=0)
    honest, given = follow_noise.settle, []

    def settled(fitted, settings):
        found, first = honest(fitted, settings), not given
        given.append(fitted.result.criterion)
        return replace(found, result=found.result.ended(OuterStatus.SPENT, "")) if first else found

    monkeypatch.setattr(follow_noise, "settle", settled)
    fit = rs.SAEManifold(n_atoms=1, topology=Circle(1), n_init=1, noise="factor").fit(
        with_factors(plant, [2.5, 1.5], 1))
    assert given[0] < given[1]  # the polished one, then that before it
    assert fit.converged_
