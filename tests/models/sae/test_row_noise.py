"""Rows of unequal scale: derivatives of V, its Gaussian limit, and V by brute force."""

import numpy as np
import pytest
from scipy.special import gammaln

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.engine import Theta, criterion
from reml_sae.errors import InputError
from reml_sae.families import StudentTRows
from reml_sae.manifolds import Circle, Euclidean
from reml_sae.models import SAEManifoldModel
from tests.models.sae.systems import build
from tests.reference.brute_force import Group, MarginalLikelihood, Orbit, laplace
from tests.reference.quadrature import grid, log_multiplicity

ATOMS = {
    "circle": ([Circle(2)], {}),
    "line": ([Euclidean(1, 1)], {"dispersion": 0.5}),
    "softmax": ([Circle(2), Circle(1)], {}),
    "topk": ([Circle(1), Euclidean(1, 1)], {"assignment": "topk", "apart": True}),
}
CASES = [(name, "laplace") for name in ATOMS] + [
    (name, "quadrature") for name in ("circle", "line")]


def unequal(name, integration="laplace", df=None):
    """A system whose rows have been stretched, some of them much."""
    atoms, options = ATOMS[name]
    base = build(atoms, **options)
    Z = base.Z * np.where(np.arange(len(base.Z)) % 7, 1.0, 3.0)[:, None]
    own = [np.log(4.0)] if df is None else []
    return base.with_changes(Z=Z, family=StudentTRows(df), rho=np.append(base.rho, own),
                             integration=integration)


def differences(function, h):
    pairs = [function(k * h) - function(-k * h) for k in (1, 2, 3)]
    return (45.0 * pairs[0] - 9.0 * pairs[1] + pairs[2]) / (60.0 * h)


@pytest.mark.parametrize(("name", "integration"), CASES)
def test_gradient_of_V(name, integration):
    """In all outer parameters, the degrees of freedom among them, and in the rows."""
    model = unequal(name, integration)
    at = criterion(model, model.rho, tol=1e-9)
    start = at.inner.theta
    assert model.rho_names[-1] == "log_df"

    def value(rho, Z=model.Z):
        return criterion(model.with_changes(Z=Z), rho, theta=start, gradient=False, tol=1e-9).value

    slopes = np.array([differences(lambda h, e=e: value(model.rho + h * e), 1e-2)
                       for e in np.eye(len(model.rho))])
    scale = np.maximum(np.abs(slopes), 1e-3 * np.abs(slopes).max())
    assert (np.abs(at.gradient - slopes) < 1e-6 * scale).all(), (at.gradient, slopes)
    found = at.inner.point.data_gradient(at.adjoint, "majorizer")
    step = np.random.default_rng(0).normal(size=model.Z.shape)
    slope = differences(lambda h: value(model.rho, model.Z + h * step), 1e-3)
    assert abs(np.vdot(found, step) - slope) < 1e-6 * np.linalg.norm(found)


@pytest.mark.parametrize(("name", "integration"), [
    ("softmax", "laplace"), ("circle", "quadrature")])
def test_second_derivative_of_the_objective(name, integration):
    model, rng = unequal(name, integration), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.rho
    point = model.at(theta, rho)
    moves = integration == "laplace"
    v = Theta(moves * model.carried * rng.normal(size=theta.xi.shape),
              rng.normal(size=theta.beta.shape))

    def gradient(h):
        return model.at(Theta(theta.xi + h * v.xi, theta.beta + h * v.beta), rho).gradient()

    product = point.hvp(v).beta
    for column in point.gauge.columns:
        product = product - point.gauge.weight * np.vdot(column, v.beta) * column
    expected = differences(lambda h: gradient(h).beta, 1e-4)
    np.testing.assert_allclose(product, expected, atol=1e-7 * np.abs(expected).max())
    if moves:
        expected = differences(lambda h: gradient(h).xi, 1e-4)
        np.testing.assert_allclose(point.hvp(v).xi, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "integration"), CASES)
def test_the_gaussian_limit(name, integration):
    model = unequal(name, integration, df=1e11)
    plain = model.with_changes(family=None)
    found = criterion(model, model.rho, gradient=False, tol=1e-9)
    # from the mode that was found: there are several
    same = criterion(plain, model.rho, theta=found.inner.theta, gradient=False, tol=1e-9)
    assert found.value == pytest.approx(same.value, abs=1e-6)


def test_moment_at_the_best_dispersion():
    """The mean square that rows at their weights leave is phi, where V is least."""
    data = planted_circles(120, 4, 1, noise_sd=0.1, random_state=0)
    Z = data.Z + 0.2 * np.random.default_rng(0).standard_t(2.0, size=(120, 1))
    # Laplace's is of the first order in 1 / (nu + p), too
    for integration, most in (("laplace", 1.15), ("quadrature", 1.0)):
        fit = rs.SAEManifold(n_atoms=1, topology="linear", n_init=1, row_noise="student_t",
                             noise="isotropic", integration=integration).fit(Z)
        model = fit.build_model(Z)
        phi = model.family.dispersion(model.rho[model.outer.psi])
        moment = phi**2 * model.at(model.initial_theta(), model.rho).score_moments()[0]
        assert 0.97 < np.trace(moment) / (phi * Z.size) <= most


def test_exact_curvature_is_refused():
    with pytest.raises(InputError, match="rows of unequal scale"):
        criterion(unequal("circle"), unequal("circle").rho, curvature="exact")


# --- brute force ---------------------------------------------------------------------------------


class ScaledRows(MarginalLikelihood):
    """L(B) with coordinates and scales of the rows summed over a grid of both."""

    def __init__(self, groups, gram, dispersion, df):
        super().__init__(groups, gram, dispersion)
        logs = np.linspace(-12.0, 4.0, 121)
        self.scales = np.exp(logs)
        self.log_scales = (0.5 * df * (np.log(0.5 * df) + logs - self.scales) - gammaln(0.5 * df)
                           + np.log(logs[1] - logs[0]))

    def em(self, B, steps):
        return B

    def derivatives(self, B):
        (group,) = self.groups
        phi, w = self.phi, self.scales
        eta = group.features @ B
        residual = group.Z[:, None] - eta
        square = (residual**2).sum(2)[:, :, None]
        joint = group.log_weights[:, None] + self.log_scales + 0.5 * self.p * np.log(
            w / (2.0 * np.pi * phi)) - 0.5 * w * square / phi
        top = joint.max((1, 2), keepdims=True)
        r = np.exp(joint - top)
        total = r.sum((1, 2), keepdims=True)
        value = self.prior(B) - float((top + np.log(total)).sum())
        r /= total
        mean, second = r @ w / phi, r @ w**2 / phi**2
        lever = (group.features[None, :, :, None] * residual[:, :, None]).reshape(
            *mean.shape, self.m * self.p)
        slope = np.einsum("ng,ngb->nb", mean, lever)
        gradient = self.gram @ B - slope.sum(0).reshape(B.shape)
        pairs = np.einsum("ng,gm,gk->mk", mean, group.features, group.features)
        hessian = np.kron(pairs + self.gram, np.eye(self.p)) + slope.T @ slope
        hessian -= np.einsum("ng,nga,ngb->ab", second, lever, lever, optimize=True)
        return value, gradient.ravel(), hessian


@pytest.mark.parametrize("df", [2.0, 8.0])
def test_V_by_brute_force(df):
    """One circle in p = 3: V by quadrature is that, V by Laplace's method is near."""
    errors = []
    for seed in range(3):
        data = planted_circles(40, 3, 1, noise_sd=0.0, random_state=seed)
        rng = np.random.default_rng(seed)
        w = rng.chisquare(df, size=(40, 1)) / df
        Z = data.Z + 0.15 * rng.normal(size=(40, 3)) / np.sqrt(w)
        Z, atom, rho = Z - Z.mean(0), Circle(1), np.log([0.03])
        xi = data.coordinates[0]
        gram, features = np.eye(3), atom.basis(xi)
        B = np.linalg.solve(features.T @ features + 0.03 * gram, features.T @ Z)
        t, weights = grid(atom, 128)
        orbit = Orbit([atom], 3)
        truth = laplace(ScaledRows([Group(Z, atom.basis(t), weights)], gram, 0.03, df), orbit, B,
                        em_steps=0)
        expected = truth.value - log_multiplicity(atom)
        for integration in ("quadrature", "laplace"):
            model = SAEManifoldModel(Z, [atom], [], np.ones((40, 1), bool), Theta(xi, B), rho,
                                     family=StudentTRows(df), integration=integration)
            found = criterion(model, rho, gradient=False, tol=1e-8).value
            if integration == "quadrature":
                assert found == pytest.approx(expected, abs=1e-6)
            else:
                errors.append(found - expected)
    assert np.abs(np.median(errors)) < 1.0  # 9 and 4 nats without `row_scales`
