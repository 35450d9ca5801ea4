"""Rows that use one atom each: the point by kinds of atoms is the dense point."""

import numpy as np
import pytest

from reml_sae.discovery.metric import in_metric
from reml_sae.engine import Deadline, REMLTrace, Theta, criterion
from reml_sae.engine.chart import Chart
from reml_sae.engine.loop import Loop
from reml_sae.engine.quasi_newton import _first_learnt
from reml_sae.engine.response import foretold_hessian
from reml_sae.families import StudentTRows
from reml_sae.families.noise import Diagonal, Factor, Isotropic, PerAtom
from reml_sae.manifolds import Circle, Euclidean, Point, Sphere
from reml_sae.models.sae import model as sae_model
from reml_sae.models.sae import rows as sae_rows
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.rows import row_decrements, row_evidence
from reml_sae.models.sae.single.kinds import packed, unpacked
from reml_sae.models.sae.single.point import SinglePoint
from tests.models.sae.systems import build, random_direction

TIGHT = 1e-8
SHAPES = {
    "circles": [Circle(1), Circle(1), Circle(1)],
    "two kinds": [Circle(2), Circle(1), Circle(2)],
    "a sphere": [Sphere(1), Circle(1)],
    "lines with laws of their own": [Euclidean(1, 2), Circle(1), Euclidean(1, 2)],
    "a point": [Circle(1), Point()],
    "planes": [Euclidean(2, 1), Euclidean(2, 1)],
}


def system(shape="two kinds", seed=0, noise="isotropic", p=7, assignment="topk", n=60):
    """Rows with one atom each; under Beta-Bernoulli gates some have none."""
    atoms = SHAPES[shape]
    model = build(atoms, n=n, p=p, assignment=assignment, apart=True, seed=seed,
                  dispersion=0.4, ard="own" in shape)
    if noise == "student_t":
        Z = model.Z * np.where(np.arange(n) % 7, 1.0, 3.0)[:, None]
        return model.with_changes(Z=Z, family=StudentTRows(None),
                                  rho=np.append(model.rho, np.log(4.0)))
    if noise == "per atom":
        rng = np.random.default_rng(seed)
        frame = np.linalg.qr(rng.normal(size=(p, 2)))[0]
        kinds = [Factor(frame, np.array([4.0, 1.5]), np.array([4.5, 1.4]), np.ones(p - 2)),
                 Isotropic(p),
                 Diagonal(np.linspace(-0.3, 0.3, p), 0.5)][:len(atoms)]
        own = PerAtom(tuple(kinds), np.linspace(-0.2, 0.2, len(kinds)), np.ones(len(kinds)),
                      np.arange(len(kinds)))
        return in_metric(model, model.theta, own)
    return model


CASES = [*((shape, seed, "isotropic", 7) for shape in SHAPES for seed in (0, 1)),
         *(("two kinds", seed, noise, p) for noise in ("student_t", "per atom")
           for seed, p in ((0, 7), (1, 3))),
         ("circles", 2, "isotropic", 2), ("planes", 2, "isotropic", 40),
         *(("two kinds", seed, noise, 7, "ordered_beta_bernoulli")
           for noise in ("isotropic", "student_t", "per atom") for seed in (0, 1))]


def close(found, expected, tol=1e-9):
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.abs(found - expected).max(initial=0.0) <= tol * (1.0 + np.abs(expected).max(
        initial=0.0))


@pytest.fixture
def dense(monkeypatch):
    """Call a function with all work done by the dense engine."""
    def call(function):
        with monkeypatch.context() as patch:
            for module in (sae_model, sae_rows):
                patch.setattr(module, "kinds_of", lambda structure: [])
            return function()

    return call


@pytest.mark.parametrize("case", CASES)
def test_every_part_of_the_point(case):
    model = system(*case)
    theta, rho = model.initial_theta(), model.initial_rho()
    single, whole = model.at(theta, rho), SAEPoint(model, theta, rho)
    assert isinstance(single, SinglePoint)
    v = random_direction(model, np.random.default_rng(case[1]))
    full = Theta(unpacked(model.kinds, v.xi, theta.xi.shape[1]), v.beta)
    for found, expected in ((single.gradient(), whole.gradient()),
                            (single.hvp(v), whole.hvp(full))):
        close(found.xi, packed(model.kinds, expected.xi))
        close(found.beta, expected.beta)
    moved, expected = model.retract(theta, v, 0.1), model.retract(theta, full, 0.1)
    # a rotation of an atom moves idle coordinates in the dense engine alone
    close(moved.xi * model.carried, expected.xi * model.carried)
    close(moved.beta, expected.beta)
    for damping in (0.0, 0.3):
        factors = single.factorize(damping), whole.factorize(damping)
        close(factors[0].logdet(), factors[1].logdet())
        found, expected = (f.solve(u.xi, u.beta) for f, u in zip(factors, (v, full), strict=True))
        close(found[0], packed(model.kinds, expected[0]))
        close(np.exp(found[1]), np.exp(expected[1]))  # no volume where a row has left its manifold
    found, expected = single.half_logdet(), whole.half_logdet()
    for name in ("value", "rho", "edf"):
        close(getattr(found, name), getattr(expected, name))
    close(found.theta.xi, packed(model.kinds, expected.theta.xi))
    close(found.theta.beta, expected.theta.beta)
    for name in ("objective_rho", "normalizer_in_objective_rho", "score_moments", "explained"):
        close(getattr(single, name)(), getattr(whole, name)())
    for name in ("objective", "dispersion_energy", "eta"):
        close(getattr(single, name), getattr(whole, name))
    close(single.gradient_rho_dot(v), whole.gradient_rho_dot(full))
    for found, expected in zip(single.log_normalizer(), whole.log_normalizer(), strict=True):
        close(found, expected)
    close(single.data_gradient(v, "majorizer"), whole.data_gradient(full, "majorizer"))
    close(single.precision_gradient(v, "majorizer"), whole.precision_gradient(full, "majorizer"))
    for k in range(len(model.atoms)):
        for found, expected in zip(single.decoder_posterior(k), whole.decoder_posterior(k),
                                   strict=True):
            close(found, expected)


@pytest.mark.parametrize("case", CASES[::2])
def test_criterion_and_codes(case, dense):
    """V, its gradient and the codes at the mode of the same outer parameters."""
    def solved():
        model = system(*case)
        found = criterion(model, model.initial_rho(), tol=1e-10)
        theta = model.refine_rows(found.inner.theta, model.rho, 30)
        return (found, theta, row_evidence(model, theta, model.rho),
                model.row_objective(theta, model.rho), row_decrements(model, theta, model.rho))

    found, expected = solved(), dense(solved)
    assert isinstance(found[0].inner.point, SinglePoint)
    assert isinstance(expected[0].inner.point, SAEPoint)
    assert found[0].inner.converged
    close(found[0].value, expected[0].value, TIGHT)
    close(found[0].gradient, expected[0].gradient, TIGHT)
    model = system(*case)  # atoms may be turned, but not by what rows have of them
    codes, others = (SAEPoint(model, theta, model.rho) for theta in (found[1], expected[1]))
    close(codes.eta, others.eta, 1e-7)
    close(codes.mixture.a, others.mixture.a, 1e-7)
    for mine, theirs in zip(found[2:4], expected[2:4], strict=True):
        close(mine, theirs, TIGHT)
    close(found[4], expected[4], 1e-6)


def test_rows_far_from_their_modes(dense):
    """The same steps, the refused ones among them."""
    model = system("a sphere", 3)
    theta = random_direction(model, np.random.default_rng(4))
    start = model.retract(model.theta, Theta(theta.xi, np.zeros_like(theta.beta)))
    for sweeps in (1, 5):
        found = model.refine_rows(start, model.rho, sweeps)
        expected = dense(lambda s=sweeps: model.refine_rows(start, model.rho, s))
        close(found.xi, expected.xi, 1e-7)


def test_an_atom_without_rows():
    model = system("circles")
    active = model.active.copy()
    active[active[:, 1], 0] = True
    active[:, 1] = False
    model = model.with_changes(active=active)
    single, whole = model.at(model.theta, model.rho), SAEPoint(model, model.theta, model.rho)
    assert isinstance(single, SinglePoint)
    close(single.half_logdet().value, whole.half_logdet().value)
    close(single.half_logdet().theta.beta, whole.half_logdet().theta.beta)


@pytest.mark.parametrize("assignment", ["softmax", "threshold_gate"])
def test_other_rows_have_the_dense_point(assignment):
    model = build([Circle(1), Circle(1)], assignment=assignment)
    assert isinstance(model.at(model.theta, model.rho), SAEPoint)


def test_rows_that_use_no_atom(dense):
    model = system("two kinds", assignment="ordered_beta_bernoulli")
    model = model.with_changes(active=np.zeros_like(model.active))
    for function in (row_evidence, row_decrements):
        close(function(model, model.theta, model.rho),
              dense(lambda f=function: f(model, model.theta, model.rho)))


def test_draws_of_rows(dense):
    """The same moves by the same noise, and the same volumes."""
    model = system("a sphere", 5)
    noise = np.random.default_rng(6).normal(size=model.theta.xi.shape) * model.carried
    found = model.row_sampler(model.theta, model.rho).move(noise)
    expected = dense(lambda: model.row_sampler(model.theta, model.rho).move(noise))
    close(found[0].xi, expected[0].xi)
    close(np.exp(found[1]), np.exp(expected[1]))  # no volume where a row has left its manifold


def test_strengths_of_many_atoms_are_differenced_at_once(monkeypatch):
    """The start of the quasi-Newton Hessian of V, by as many gradients as the largest atom has."""
    model = build([Circle(2), Circle(2), Circle(3)], assignment="topk", apart=True, n=60, p=5)
    asked = []

    def hessian():
        loop = Loop(model, "majorizer", 1e-6, 1e-9, (), REMLTrace(), 50, Deadline())
        value = loop.evaluate(model.initial_rho(), gradient=True)
        loop.keep(model.initial_rho(), value)
        monkeypatch.setattr(loop, "evaluate", lambda *args, **options: (
            asked.append(1), Loop.evaluate(loop, *args, **options))[1])
        chart = Chart(model.outer, model.initial_rho())
        return _first_learnt(loop, chart, whole=True) + foretold_hessian(
            chart, loop.best_rho, loop.found)

    found, often = hessian(), len(asked)
    monkeypatch.setattr(type(model), "rho_apart", lambda self: ())
    close(found, hessian(), 1e-3)
    assert (often, len(asked) - often) == (3, 5)  # amplitudes and noise on their own
