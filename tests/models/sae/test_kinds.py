"""Every kind of penalty that the engine carries: derivatives, criterion, log-determinant, knob."""

from functools import cache

import numpy as np
import pytest
from scipy.linalg import block_diag

from reml_sae import penalties as pen
from reml_sae.discovery.encode import encode
from reml_sae.discovery.policy import EncodePolicy
from reml_sae.engine import solve_inner
from reml_sae.errors import InputError
from reml_sae.models import bind_penalty
from tests.models.differences import check_gradient_of_the_criterion
from tests.models.sae.kinds import CARRIED, REFUSED, N, P
from tests.models.sae.systems import build, random_direction
from tests.models.sae.test_derivatives import central

every = pytest.mark.parametrize("kind", CARRIED, ids=lambda kind: kind.name)
curvatures = pytest.mark.parametrize("curvature", ["majorizer", "exact"])


@cache
def at_mode(kind):
    model = kind.model()
    rho = model.initial_rho()
    solution = solve_inner(model, rho, tol=1e-10, max_iter=300)
    assert solution.converged, solution.status
    return model.with_state(solution.theta, rho)


def test_every_kind_is_carried_or_refused_by_name():
    carried = {kind.config["kind"] for kind in CARRIED}
    refused = {config["kind"] for config, _ in REFUSED}
    built_in = {kind for kind in pen.registered_kinds()
                if pen.get(kind).__module__.startswith("reml_sae.")}
    assert carried | refused == built_in - {"composite"}


REASONS = "{}.*(acts on|not differentiable|prior on gates)"


@pytest.mark.parametrize(("config", "atoms"), REFUSED,
                         ids=[config["kind"] for config, _ in REFUSED])
def test_refused(config, atoms):
    penalty = pen.from_config(config)
    with pytest.raises(InputError, match=REASONS.format(config["kind"])):
        bind_penalty(penalty, atoms, P)


@pytest.mark.parametrize("kind", CARRIED[::6], ids=lambda kind: kind.name)
def test_codes_are_found_without_a_change_of_the_model(kind):
    """What is computed once of the active set would be false after a change in place."""
    model = kind.model()
    theta, rho, before = model.initial_theta(), model.initial_rho(), model.active.copy()
    for search_from_state in (False, True):
        active = encode(model, theta, rho, EncodePolicy(),
                        search_from_state=search_from_state)[1]
        active[:] = ~active
        np.testing.assert_array_equal(model.active, before)
    with pytest.raises(ValueError, match="read-only"):
        model.active[0] = True


@every
def test_gradient_and_hessian_product(kind):
    model, rng = kind.model(), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    point = model.at(theta, rho)
    assert point.objective == pytest.approx(model.objective(theta, rho), rel=1e-12)
    v, w = random_direction(model, rng), random_direction(model, rng)
    expected = central(lambda th: model.objective(th, rho), model, theta, v)
    assert point.gradient().dot(v) == pytest.approx(expected, rel=1e-6)
    expected = central(lambda th: model.at(th, rho).gradient().dot(w), model, theta, v)
    found = point.hvp(v).dot(w)
    for column in point.gauge.columns:
        found -= point.gauge.weight * np.vdot(column, v.beta) * np.vdot(column, w.beta)
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("assignment", ["topk", "ordered_beta_bernoulli", "threshold_gate"])
@pytest.mark.parametrize("kind", [kind for kind in CARRIED if "decoder" in kind.name],
                         ids=lambda kind: kind.name)
def test_decoders_beside_an_intercept(kind, assignment):
    """Under gates beta has one more row, which no penalty on decoders may touch."""
    terms = [term for term in kind.model().terms if term.target in ("decoder", "decoders")]
    model = build(list(kind.atoms), n=N, p=P, extra=terms, assignment=assignment, own=False)
    theta, rho = model.initial_theta(), model.initial_rho()
    v = random_direction(model, np.random.default_rng(0))
    point = model.at(theta, rho)
    expected = central(lambda th: model.objective(th, rho), model, theta, v)
    assert point.gradient().dot(v) == pytest.approx(expected, rel=1e-6)
    expected = central(lambda th: model.at(th, rho).half_logdet().value, model, theta, v)
    assert point.half_logdet().theta.dot(v) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@every
@curvatures
def test_logdet_gradient(kind, curvature):
    model, rng = at_mode(kind), np.random.default_rng(0)
    theta, rho = model.initial_theta(), model.initial_rho()
    value = model.at(theta, rho).half_logdet(curvature)
    v = random_direction(model, rng)
    expected = central(lambda th: model.at(th, rho).half_logdet(curvature).value, model, theta, v)
    assert value.theta.dot(v) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@every
def test_logdet_against_dense(kind):
    model, rng = kind.model(), np.random.default_rng(1)
    point = model.at(model.initial_theta(), model.initial_rho())
    dense = dense_curvature(point)
    sign, expected = np.linalg.slogdet(dense)
    assert sign > 0
    factor = point.factorize()
    assert factor.logdet() == pytest.approx(expected, rel=1e-9)
    g = random_direction(model, rng)
    rows, border = factor.solve(g.xi, g.beta)
    flat = np.concatenate([g.xi.ravel(), g.beta.ravel()])
    found = np.concatenate([rows.ravel(), border.ravel()])
    np.testing.assert_allclose(dense @ found, flat, atol=1e-9 * np.abs(dense).max())


def dense_curvature(point):
    """H as a dense matrix, its penalties from the public contract alone."""
    model, theta = point.structure, point.theta
    n, p = model.shape
    q = theta.xi.shape[1]
    matrix = point.curvature()
    data = point.precision * (point.features.T @ point.features)
    dense = np.zeros((theta.xi.size + theta.beta.size,) * 2)
    index = np.arange(n * q).reshape(n, q)
    for i in range(n):
        j = matrix.jacobians[i] @ matrix.span.T
        dense[np.ix_(index[i], index[i])] = point.precision * j @ j.T
        cross = point.precision * np.einsum("m,qp->qmp", point.features[i], j).reshape(q, -1)
        dense[index[i], n * q:] = cross
        dense[n * q:, index[i]] = cross.T
        held = index[i, ~model.carried[i]]
        dense[held, held] += 1.0
    for k, atom in enumerate(model.atoms):
        if atom.is_euclidean and model.has_manifold_prior[k]:
            normal = index[model.active[:, k], model.coordinate_columns(k)].ravel()
            dense[normal, normal] += 1.0
    border = dense[n * q:, n * q:]
    border += np.kron(data, np.eye(p))
    for column in point.gauge.columns:
        border += point.gauge.weight * np.outer(column.ravel(), column.ravel())
    for k, where in enumerate(model.layout.basis_slices):
        if model.has_gaussian_decoder[k]:
            sized = any(term.is_decoder_size and term.atom == k for term in model.terms)
            flat = np.arange(where.start * p, where.start * p + p if sized else where.stop * p)
            border[flat, flat] += model.decoder_precision
    for _, where, scale, _ in point.decoder_prior.scales:
        flat = np.arange(where.start * p, where.stop * p)
        border[np.ix_(flat, flat)] += np.kron(scale.gram, np.eye(p))
    chart = model.assignment.basis
    if model.assignment.dim:
        a = point.mixture.a
        for i in range(n):
            block = model.assignment.n_atoms * (np.diag(a[i]) - np.outer(a[i], a[i]))
            z = index[i, : model.assignment.dim]
            dense[np.ix_(z, z)] += chart.T @ block @ chart / model.assignment.temperature**2
    for term in model.terms:
        rho = term.rho(point.rho)
        if term.target == "logits":
            target = model.assignment.logits(theta.xi[:, : model.assignment.dim])
            lift = np.kron(np.eye(n), chart)
            places = index[:, : model.assignment.dim].ravel()
        elif term.target == "coordinates":
            rows = np.flatnonzero(model.active[:, term.atom])
            columns = model.coordinate_columns(term.atom)
            target = theta.xi[rows, columns]
            places = index[rows, columns].ravel()
            lift = np.eye(target.size)
        elif term.target == "outer":
            continue
        else:
            where = (slice(None) if term.target == "decoders"
                     else model.layout.basis_slices[term.atom])
            target = theta.beta[where]
            places = n * q + np.arange(theta.beta.size).reshape(theta.beta.shape)[where].ravel()
            lift = np.eye(target.size)
        penalty = term.penalty
        if term.target == "coordinates":
            penalty = model.restricted(term, rows).penalty
        if term.target == "logits":  # its tight majorizer has a name of its own
            scale = penalty.strength(rho) / penalty.temperature**2
            B = block_diag(*penalty.row_tight_majorizer(target, scale))
        else:
            B = np.array([penalty.psd_majorizer_hvp(target, rho, e) for e in np.eye(target.size)])
        dense[np.ix_(places, places)] += lift.T @ B @ lift
    return dense


@every
def test_gradient_of_the_criterion(kind):
    model = at_mode(kind)
    check_gradient_of_the_criterion(model, model.initial_rho(), step=1e-4, order=4)


@every
def test_a_larger_weight_lowers_its_own_penalty(kind):
    """At the minimum of F the penalty without its weight falls as the weight rises."""
    if kind.config["kind"] == "log_strength_prior":
        pytest.skip("acts on rho: tests/engine/test_hyperprior.py")
    measure = kind.penalty(weight=1.0, learnable=False)
    levels, codes = [], []
    start = None
    for weight in kind.weights:
        model = kind.model(weight=weight, learnable=False)
        rho = model.initial_rho()
        solution = solve_inner(model, rho, start, tol=1e-9, max_iter=300)
        assert solution.converged, solution.status
        start = solution.theta
        levels.append(level(model, solution.theta, measure))
        codes.append(solution.theta)
    assert levels[0] > levels[1] > levels[2]
    assert not np.allclose(codes[0].beta, codes[2].beta, atol=1e-6)


def level(model, theta, measure):
    """The penalty at weight one on every target that it has in the model."""
    total = 0.0
    for term in model.terms:
        if term.penalty.KIND_TAG != measure.KIND_TAG:
            continue
        if term.target == "logits":
            target = model.assignment.logits(theta.xi[:, : model.assignment.dim])
        elif term.target == "coordinates":
            rows = np.flatnonzero(model.active[:, term.atom])
            target = theta.xi[rows, model.coordinate_columns(term.atom)]
        else:
            target = theta.beta[slice(None) if term.target == "decoders"
                                else model.layout.basis_slices[term.atom]]
        total += measure.value(target, np.zeros(0))
    return total
