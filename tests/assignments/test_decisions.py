"""What an assignment decides of a row agrees with the amplitudes that it gives it."""

import numpy as np
import pytest

from reml_sae import penalties as pen
from reml_sae.assignments import get_assignment

K = 3
NAMES = ["softmax", "topk", "ordered_beta_bernoulli", "threshold_gate"]


@pytest.fixture(params=NAMES)
def assignment(request):
    return get_assignment(request.param, K)


@pytest.fixture
def support():
    return np.array([[True, False, False], [False, True, False], [False, False, False]])


def gradient(f, x, step=1e-5):
    """Central differences."""
    return np.array([(f(x + step * unit) - f(x - step * unit)) / (2.0 * step)
                     for unit in np.eye(len(x))])


def test_what_is_not_carried_does_not_enter(assignment, support):
    zeta = np.random.default_rng(0).normal(size=(len(support), assignment.dim))
    is_open, carried = assignment.open_mask(support), assignment.carried(support)
    a = assignment.amplitudes(assignment.logits(zeta), is_open).a
    moved = np.where(carried, zeta, zeta + 1.0)
    np.testing.assert_array_equal(
        assignment.amplitudes(assignment.logits(moved), is_open).a, a)
    assert not a[~is_open].any()


def test_amplitudes_are_those_of_the_start(assignment, support):
    wanted = assignment.normalised(np.where(support, 0.8, 0.1))
    zeta = assignment.start(support, wanted)
    a = assignment.amplitudes(assignment.logits(zeta), assignment.open_mask(support)).a
    np.testing.assert_allclose(a[support], wanted[support], rtol=0.05)
    assert assignment.users(a, support)[support].all()
    if assignment.is_mixture:
        np.testing.assert_allclose(a.sum(axis=1), 1.0)


def test_a_constant_is_in_one_place(assignment, support):
    """Whole, or with the amplitude, or, without either, in the intercept alone."""
    centres, one = assignment.centres(support), np.ones((1, 2))
    assert assignment.has_intercept == (centres is not None)
    if centres is not None:
        assert centres.any() == assignment.whole_constants(one).any()


def test_priors_of_its_own_are_ones_that_it_goes_with(assignment):
    for prior in assignment.own_priors():
        assert prior.penalty.is_normalised
        assert assignment.objection(prior.penalty) == ""
    for penalty in assignment.default_penalties():
        assert assignment.objection(penalty) == ""
    assert bool(assignment.own_priors()) != assignment.is_mixture


def test_objections_name_the_kind(assignment):
    entropy = pen.SoftmaxAssignmentSparsityPenalty(k_atoms=K, temperature=2.0)
    assert entropy.KIND_TAG in assignment.objection(entropy)


def test_derivatives_of_the_density_that_the_chart_carries(assignment, support):
    rng = np.random.default_rng(1)
    z, w = rng.normal(size=(1, K)), rng.normal(size=(K, K))
    w = (w + w.T)[None]

    def at(point):
        return assignment.amplitudes(point.reshape(1, K), np.ones((1, K), bool))

    np.testing.assert_allclose(
        at(z).log_jacobian_gradient()[0],
        gradient(lambda x: at(x).log_jacobian()[0], z.ravel()), atol=1e-6)
    np.testing.assert_allclose(
        np.einsum("ij,j->i", at(z).log_jacobian_hessian()[0], w[0, 0]),
        gradient(lambda x: at(x).log_jacobian_gradient()[0] @ w[0, 0], z.ravel()), atol=1e-6)
    np.testing.assert_allclose(
        at(z).log_jacobian_hessian_vjp(w)[0],
        gradient(lambda x: np.vdot(w, at(x).log_jacobian_hessian()), z.ravel()), atol=1e-6)
