"""The correction for the scale of Gaussian coordinates: derivatives, and probabilistic PCA."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import logsumexp
from scipy.stats import norm

from reml_sae.engine import Theta, criterion, solve_inner
from reml_sae.manifolds import (
    Circle,
    Cylinder,
    Duchon,
    Euclidean,
    Interval,
    Mobius,
    ProjectivePlane,
    Sphere,
    Torus,
)
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.scale import Scale, scale_terms
from reml_sae.models.sae.start import solve_beta
from reml_sae.penalties import QuadraticPenalty

ATOMS = [Euclidean(1, 1), Euclidean(2, 2), Euclidean(3, 1), Interval(6), Cylinder(1, 2), Mobius(1),
         Duchon(2, 6), Circle(2), Torus(1), Sphere(2), ProjectivePlane(2)]
every = pytest.mark.parametrize("atom", ATOMS, ids=repr)


def scale_at(atom, B, floor=0.3):
    w, _, C, P = list(scale_terms(atom))[-1]
    return Scale(50.0 * w, C, B, P, floor)


def central(function, h=1e-5):
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


@every
def test_derivatives(atom):
    rng = np.random.default_rng(0)
    B, v = rng.normal(size=(2, atom.basis_size, 4))
    scale = scale_at(atom, B)
    G = rng.normal(size=(B.size, B.size))
    G = G + G.T
    trace = rng.normal(size=(len(B), len(B)))
    trace = trace + trace.T

    def moved(h):
        return scale_at(atom, B + h * v)

    def hotter(h):
        return scale_at(atom, B, 0.3 * np.exp(h))

    def close(found, expected):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())

    close(np.vdot(scale.gradient(), v), central(lambda h: moved(h).value()))
    close(scale.hvp(v), central(lambda h: moved(h).gradient()))
    close(scale.dense() @ v.ravel(), scale.hvp(v).ravel())
    close(np.vdot(scale.gram_pull(trace), v),
          central(lambda h: np.vdot(moved(h).gram, trace)))
    close(np.vdot(scale.dense_pull(G), v), central(lambda h: np.vdot(moved(h).dense(), G)))
    close(scale.value_rho(), central(lambda h: hotter(h).value()))
    close(scale.gram_rho(), central(lambda h: hotter(h).gram))
    close(scale.gradient_rho(), central(lambda h: hotter(h).gradient()))
    close(scale.dense_rho(G), central(lambda h: np.vdot(hotter(h).dense(), G)))


@every
def test_gram_majorizes(atom):
    B = np.random.default_rng(1).normal(size=(atom.basis_size, 3))
    scale = scale_at(atom, B)
    rest = np.kron(scale.gram, np.eye(3)) - scale.dense()
    assert np.linalg.eigvalsh(rest).min() > -1e-9 * np.abs(rest).max()


@pytest.mark.parametrize("sd", [0.1, 0.3])
def test_v_of_an_interval_by_laplace_is_near_that_of_its_rows(sd):
    """Nats a row between V of a bent segment by Laplace's method and by quadrature; .5 along t."""
    rng = np.random.default_rng(3)
    s, n = rng.uniform(size=300), 300
    Z = np.column_stack([2.0 * s - 1.0, 2.0 * (s - 0.5) ** 2, np.zeros(n)])
    Z += sd * rng.normal(size=Z.shape)
    atom = Interval(6)
    start = Theta(norm.ppf(s)[:, None], np.zeros((6, 3)))
    roughness = PenaltyTerm(QuadraticPenalty(S=atom.roughness()), "decoder", 0)
    values = []
    for integration in ("laplace", "quadrature"):
        model = SAEManifoldModel(Z, [atom], [roughness], np.ones((n, 1), bool), start,
                                 np.array([0.0, 2.0 * np.log(sd)]), integration=integration)
        rho = model.initial_rho()
        model = model.with_state(solve_beta(model, start, rho), rho)
        found = criterion(model, rho, gradient=False, tol=1e-7)
        assert found.inner.converged
        values.append(found.value)
    assert -0.05 < (values[0] - values[1]) / n < 0.2


def linear_model(n=300, p=6, d=2, noise=0.3, seed=0):
    """A linear atom on rows of a Gaussian with two axes of unequal length."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, d)) * np.linspace(1.5, 0.7, d)
    Z = t @ np.linalg.qr(rng.normal(size=(p, d)))[0].T + noise * rng.normal(size=(n, p))
    Z -= Z.mean(0)
    atom = Euclidean(d, 1)
    start = Theta(t + 0.1 * rng.normal(size=t.shape), np.zeros((1 + d, p)))
    model = SAEManifoldModel(Z, [atom], [], np.ones((n, 1), bool), start,
                             np.log([noise**2]), decoder_precision=1e-3, integration="laplace")
    rho = model.initial_rho()
    return model.with_state(solve_beta(model, start, rho), rho)


def test_linear_atom_is_probabilistic_pca():
    model = linear_model()
    rho = model.initial_rho()
    solution = solve_inner(model, rho, tol=1e-9)
    assert solution.converged
    phi = float(np.exp(rho[0]))
    # Tipping and Bishop 1999, eq. 7: the maximum likelihood loadings, of n - p for n rows
    n, p = model.shape
    values = np.linalg.eigvalsh(np.cov(model.Z.T, bias=True))[::-1][:2]
    loadings = np.linalg.svd(solution.theta.beta[1:], compute_uv=False)
    np.testing.assert_allclose(loadings, np.sqrt(values * n / (n - p) - phi), rtol=1e-3)
    t = solution.theta.xi
    assert np.abs(t.var(axis=0) - (1.0 - phi / values)).max() < 0.05


def test_row_part_of_the_criterion_is_the_marginal_likelihood():
    """F + (1/2) sum log |D_i| at the decoders is the exact Gaussian likelihood of the rows."""
    model = linear_model()
    rho = model.initial_rho()
    found = criterion(model, rho, tol=1e-9)
    theta, phi = found.inner.theta, float(np.exp(rho[0]))
    cov = theta.beta[1:].T @ theta.beta[1:] + phi * np.eye(model.shape[1])
    centred = model.Z - theta.beta[0]
    exact = 0.5 * (np.vdot(centred, np.linalg.solve(cov, centred.T).T)
                   + len(centred) * np.linalg.slogdet(2 * np.pi * cov)[1])
    rows = model.at(theta, rho).row_hessian("majorizer")
    laplace = model.row_objective(theta, rho).sum() + 0.5 * np.linalg.slogdet(rows)[1].sum()
    assert laplace == pytest.approx(exact, rel=1e-10)


def log_bingham(a):
    """Log of the integral of exp(sum a_i u_i^2) over unit vectors u, by its contour integral."""
    a = np.asarray(a, float)
    saddle = brentq(lambda s: 1.0 - 0.5 * (1.0 / (s - a)).sum(), a.max() + 0.25, a.max() + len(a))
    width = (0.5 * ((saddle - a) ** -2).sum()) ** -0.5
    along = width * np.linspace(-60.0, 60.0, 3001)
    z = saddle + 1j * along
    logs = z - 0.5 * np.log(z[:, None] - a).sum(axis=1)
    top = logs.real.max()
    whole = np.exp(logs - top).sum().real * (along[1] - along[0]) / (2.0 * np.pi)
    return top + np.log(2.0 * whole) + 0.5 * len(a) * np.log(np.pi)


def evidence_of_a_line(Z, phi, strength):
    """Negative log evidence of centred rows (n, p) on a line whose decoder has a known strength."""
    n, p = Z.shape
    values = np.zeros(p)
    found = np.linalg.svd(Z, compute_uv=False) ** 2
    values[: min(n, p)] = found[:p]
    # without its mean, which is zero, a row is one of n - 1 from N(0, phi I + b b^T)
    base = 0.5 * n * p * np.log(2.0 * np.pi) + 0.5 * (n - 1) * (p - 1) * np.log(phi)
    base += 0.5 * values.sum() / phi + 0.5 * (p - 1) * np.log(phi + n / strength)
    base -= 0.5 * p * np.log(strength / (2.0 * np.pi))
    lengths = np.exp(np.linspace(-3.0, 3.0, 61))
    logs = []
    for r2 in lengths**2:
        whole = phi + r2
        loss = base + 0.5 * ((n - 1) * np.log(whole) + np.log(whole + n / strength) + strength * r2)
        turned = log_bingham(0.5 * r2 / (phi * whole) * values)
        logs.append(-loss + turned + 0.5 * p * np.log(r2))
    return -logsumexp(logs) - np.log(np.log(lengths[1] / lengths[0]))


@pytest.mark.parametrize(("n", "p"), [(200, 10), (20, 20), (20, 60)])
@pytest.mark.parametrize("strength", [1.0, 4.0], ids=["weak", "strong"])
def test_v_of_a_line_is_its_evidence(n, p, strength):
    """Where columns outnumber rows too; without the volume it is .4, 2 and 15 nats too high."""
    rng = np.random.default_rng([n, p])
    axis, phi = np.linalg.qr(rng.normal(size=(p, 1)))[0].T, 0.01
    Z = 2.0 * rng.normal(size=(n, 1)) * axis + np.sqrt(phi) * rng.normal(size=(n, p))
    Z -= Z.mean(axis=0)
    strength /= (Z**2).mean()
    exact = evidence_of_a_line(Z, phi, strength)
    start = Theta(Z @ axis.T / 2.0, np.zeros((2, p)))
    for integration, low, high in (("quadrature", -0.2, 0.1), ("laplace", -1.3, 0.1)):
        model = SAEManifoldModel(Z, [Euclidean(1, 1)], [], np.ones((n, 1), bool), start,
                                 np.log([phi]), decoder_precision=strength, integration=integration)
        rho = model.initial_rho()
        model = model.with_state(solve_beta(model, start, rho), rho)
        found = criterion(model, rho, gradient=False, tol=1e-7)
        assert found.inner.converged
        assert low < found.value - exact < high, integration
