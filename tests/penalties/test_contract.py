"""What every registered kind fulfils, from one parametrised module; the cases are in ``cases/``."""

import json
import sys
import tomllib

import numpy as np
import pytest
from scipy.optimize import minimize

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import MatrixPenalty, RowInverse
from tests.penalties.cases import CASES

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
proper = pytest.mark.parametrize("case", [case for case in CASES if case.penalty.is_normalised],
                                 ids=lambda case: case.name)


def test_every_registered_kind_is_tested():
    built_in = {kind for kind in pen.registered_kinds()
                if pen.get(kind).__module__.startswith("reml_sae.")}
    assert {case.penalty.KIND_TAG for case in CASES} == built_in - {"composite"}


def test_every_proper_kind_is_integrated_and_planted():
    of_kind = {}
    for case in CASES:
        if case.penalty.is_normalised:
            of_kind.setdefault(case.penalty.KIND_TAG, []).append(case)
    # test_simplex.py, test_coupled.py
    exact_elsewhere = {"softmax_assignment_sparsity", "ordered_beta_bernoulli"}
    for kind, cases in of_kind.items():
        assert any(case.planted for case in cases) or not cases[0].penalty.n_strengths(), kind
        assert kind in exact_elsewhere or any(case.small for case in cases), kind


@every
def test_value_against_plain_loops(case):
    penalty = case.penalty
    found = penalty.value(case.target, case.at_rho)
    expected = case.reference(case.target, penalty.strengths(case.at_rho))
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-11)
    assert penalty.value(case.target.ravel(), case.at_rho) == pytest.approx(found, rel=1e-13)


@every
def test_derivatives(case):
    report = pen.check_penalty(case.penalty, case.target, case.at_rho)
    assert report.passed, str(report)


@every
def test_extreme_and_tied_targets(case):
    penalty, rho = case.penalty, case.at_rho
    for target in case.extremes:
        assert np.isfinite(penalty.value(target, rho))
        assert np.isfinite(penalty.grad_target(target, rho)).all()
        eye = np.eye(target.size)
        hessian = np.array([penalty.hvp(target, rho, e) for e in eye])
        majorizer = np.array([penalty.psd_majorizer_hvp(target, rho, e) for e in eye])
        assert np.isfinite(hessian).all() and np.isfinite(majorizer).all()
        scale = max(np.abs(majorizer).max(), np.abs(hessian).max(), 1e-300)
        np.testing.assert_allclose(hessian, hessian.T, atol=1e-10 * scale)
        assert np.linalg.eigvalsh(majorizer).min() >= -1e-10 * scale
        assert np.linalg.eigvalsh(majorizer - hessian).min() >= -1e-10 * scale


@every
def test_random_targets_are_majorized(case):
    penalty, rho, rng = case.penalty, case.at_rho, np.random.default_rng(5)
    for scale in (1e-3, 0.1, 1.0, 10.0):
        for _ in range(2):
            target = scale * rng.normal(size=case.target.shape)
            eye = np.eye(target.size)
            hessian = np.array([penalty.hvp(target, rho, e) for e in eye])
            majorizer = np.array([penalty.psd_majorizer_hvp(target, rho, e) for e in eye])
            size = max(np.abs(majorizer).max(), np.abs(hessian).max(), 1e-300)
            assert np.linalg.eigvalsh(majorizer).min() >= -1e-10 * size
            assert np.linalg.eigvalsh(majorizer - hessian).min() >= -1e-10 * size
            np.testing.assert_allclose(penalty.psd_majorizer_diag(target, rho),
                                       np.diagonal(majorizer), atol=1e-10 * size)


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case.penalty, MatrixPenalty)
                                  and case.penalty.ROW_BLOCK_DIAGONAL
                                  and not case.penalty.by_output()], ids=lambda case: case.name)
def test_no_rows(case):
    """An atom that no row uses: every sum is empty, and has its shape."""
    n, d = case.penalty.rows(case.target).shape
    penalty, rho = case.penalty.restrict(np.zeros(0, int), n), case.at_rho
    none = np.zeros((0, d))
    assert penalty.value(none, rho) == 0.0
    assert penalty.grad_target(none, rho).shape == (0,)
    np.testing.assert_array_equal(penalty.grad_rho(none, rho), np.zeros(len(rho)))
    assert penalty.grad_target_rho(none, rho).shape == (len(rho), 0, d)
    curvature = penalty.curvature(none, rho, "majorizer")
    assert curvature.blocks.shape == (0, d, d)
    G = RowInverse(np.zeros((0, d, d)), np.zeros((0, d, d)), np.zeros((0, 0, d)))
    assert penalty.curvature_vjp(none, rho, G, "majorizer").shape == (0, d)
    assert penalty.curvature_rho(none, rho, G, "majorizer").shape == (len(rho),)


@every
def test_a_hessian_diagonal_is_exact_and_given_where_the_hessian_is_diagonal(case):
    """The entropy gives its own all the same."""
    penalty, target = case.penalty, case.target
    hessian = np.array([penalty.hvp(target, case.at_rho, e) for e in np.eye(target.size)])
    found = penalty.hessian_diag(target, case.at_rho)
    size = max(np.abs(hessian).max(), 1e-300)
    if found is None:
        return
    np.testing.assert_allclose(found, np.diagonal(hessian), atol=1e-12 * size)
    if penalty.KIND_TAG != "softmax_assignment_sparsity":
        assert np.abs(hessian - np.diag(np.diagonal(hessian))).max() <= 1e-12 * size


@every
def test_weight_zero_is_refused_or_switches_the_penalty_off(case):
    penalty, target = case.penalty, case.target
    config = {**penalty.to_config(), "weight": 0.0}
    schedule = {"kind": "linear", "w_start": 1.0, "w_end": 0.0, "steps": 2}
    if not penalty.ZERO_WEIGHT:
        with pytest.raises(RegistryError, match="weight must be a positive number"):
            pen.from_config(config)
        with pytest.raises(RegistryError, match=r"weight_schedule\.w_end must be positive"):
            pen.from_config({**penalty.to_config(), "weight_schedule": schedule})
        return
    off, rho, v = pen.from_config(config), case.at_rho, np.ones(target.size)
    assert off.value(target, rho) == 0.0
    for found in (off.grad_target(target, rho), off.hvp(target, rho, v),
                  off.psd_majorizer_diag(target, rho), off.psd_majorizer_hvp(target, rho, v),
                  off.grad_rho(target, rho), off.grad_target_rho(target, rho)):
        assert not found.any()
    ending = pen.from_config({**penalty.to_config(), "weight_schedule": schedule})
    assert ending.apply_schedule(2).weight == ending.settled().weight == 0.0


@every
def test_row_block_flag_is_true(case):
    if not isinstance(case.penalty, pen.RowPenalty):
        return
    view = case.penalty.rows(case.target)
    other = np.random.default_rng(0).normal(size=view.shape)
    other[0] = view[0]
    here, there = (case.penalty.rows(case.penalty.grad_target(case.penalty.flat(x), case.at_rho))
                   for x in (view, other))
    np.testing.assert_allclose(here[0], there[0], rtol=1e-12)
    assert case.penalty.ROW_BLOCK_DIAGONAL


def integral(small):
    """Log of the integral of exp(-P) over the range, by a tensor rule in sinh-spaced nodes."""
    rho = np.zeros(small.penalty.rho_count()) if small.rho is None else small.rho
    dim = small.basis.shape[1]
    n = {1: 1001, 2: 81, 3: 33}[dim]  # more nodes move no integral by 5e-7
    u = np.linspace(-1.0, 1.0, n)
    # x = scale sinh(c sinh(b u)): double-exponential trapezoidal rule on the line
    c, b = 1.3, 1.9
    x = small.scale * np.sinh(c * np.sinh(b * u))
    weight = small.scale * np.cosh(c * np.sinh(b * u)) * c * b * np.cosh(b * u) * (u[1] - u[0])
    grids = np.meshgrid(*[x] * dim, indexing="ij")
    points = np.stack([grid.ravel() for grid in grids], axis=1)
    mass = weight
    for _ in range(dim - 1):
        mass = np.multiply.outer(mass, weight)
    values = np.array([small.penalty.value(small.basis @ point, rho) for point in points])
    return np.log(np.sum(mass.ravel() * np.exp(-values)))


@pytest.mark.parametrize("case", [case for case in CASES if case.small],
                         ids=lambda case: case.name)
def test_log_partition_against_quadrature(case):
    small = case.small
    rho = np.zeros(small.penalty.rho_count()) if small.rho is None else small.rho
    found = small.penalty.log_partition(rho, small.n_rows)
    assert found is not None
    assert found[0] == pytest.approx(integral(small), abs=2e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case.planted],
                         ids=lambda case: case.name)
def test_planted_strength_is_recovered(case):
    """REML with the target observed: P + log C has its minimum at the planted rho."""
    penalty, target, truth = case.planted(np.random.default_rng(11))
    view = penalty.rows(target) if isinstance(penalty, pen.MatrixPenalty) else target.T

    def criterion(rho):
        value, slope = penalty.log_partition(rho, len(view))
        return penalty.value(target, rho) + value, penalty.grad_rho(target, rho) + slope

    found = minimize(criterion, penalty.initial_rho(), jac=True, method="L-BFGS-B",
                     bounds=penalty.rho_bounds())
    np.testing.assert_allclose(found.x, truth, atol=case.planted_tolerance)


@every
def test_configuration_round_trip(case):
    config = case.penalty.to_config()
    assert config["kind"] == case.penalty.KIND_TAG
    assert pen.from_config(config) == case.penalty
    again = pen.from_config(json.loads(json.dumps(config)))
    assert again == case.penalty
    rho = case.at_rho
    assert again.value(case.target, rho) == case.penalty.value(case.target, rho)
    inline = ", ".join(f"{key} = {json.dumps(value)}" for key, value in config.items())
    assert pen.from_config(tomllib.loads(f"x = {{ {inline} }}")["x"]) == case.penalty


@every
def test_manifest(case):
    penalty = case.penalty
    assert pen.get(penalty.KIND_TAG) is type(penalty)
    assert type(penalty).__name__ == penalty.PYTHON_WRAPPER
    assert isinstance(penalty.tier(), pen.PenaltyTier)
    assert isinstance(penalty.dispatch_tier(), pen.PenaltyTier)
    assert isinstance(penalty.ROW_BLOCK_DIAGONAL, bool)
    assert penalty.FORMULA
    assert "Parameters" in type(penalty).__doc__


@every
def test_learnable(case):
    penalty = case.penalty
    rho = np.zeros(penalty.rho_count())
    fixed = pen.from_config({**penalty.to_config(), "learnable": False})
    assert fixed.rho_count() == 0
    assert fixed.value(case.target, np.zeros(0)) == pytest.approx(
        penalty.value(case.target, rho), rel=1e-12)
    assert fixed.grad_rho(case.target, np.zeros(0)).shape == (0,)
    partition = penalty.log_partition(rho, 3 if not isinstance(penalty, pen.MatrixPenalty)
                                      else len(penalty.rows(case.target)))
    if penalty.is_normalised:
        assert np.isfinite(partition[0]) and partition[1].shape == (penalty.rho_count(),)
    else:
        assert partition is None
        assert not penalty.is_learnable
        with pytest.raises(RegistryError, match="learnable"):
            pen.from_config({**penalty.to_config(), "learnable": True})


@every
def test_wrong_rho(case):
    penalty = case.penalty
    with pytest.raises(InputError, match="rho"):
        penalty.value(case.target, np.zeros(penalty.rho_count() + 1))
    if penalty.rho_count():
        with pytest.raises(InputError, match="700"):
            penalty.value(case.target, np.full(penalty.rho_count(), 701.0))


def calls(penalty, target, n):
    """Function calls, Python's and numpy's, of one round of the contract."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    rho = penalty.initial_rho()
    for profile in (None, note):  # the first round fills the caches
        sys.setprofile(profile)
        try:
            results = [penalty.value(target, rho), penalty.grad_target(target, rho),
                       penalty.hvp(target, rho, np.ones(target.size)),
                       penalty.psd_majorizer_diag(target, rho), penalty.grad_rho(target, rho)]
            penalty.log_partition(rho, n)
        finally:
            sys.setprofile(None)
    assert all(np.isfinite(result).all() for result in results)
    return count


@every
def test_many_rows_need_no_loop(case):
    few, many = (calls(*case.large(n), n) for n in (1_000, 20_000))
    assert many <= 1.5 * few


def test_the_check_can_fail():
    class Wrong(pen.ARDPenalty):
        def row_gradient(self, target, rho):
            return 1.001 * super().row_gradient(target, rho)

    report = pen.check_penalty(Wrong(latent_dim=1), np.ones((4, 1)), np.zeros(1))
    assert not report.passed
    assert "FAIL" in str(report)


def test_unknown_kind_names_the_near_ones():
    with pytest.raises(RegistryError, match=r"penalty\.kind.*'ard'"):
        pen.from_config({"kind": "adr"})


def test_unknown_key_names_its_path():
    with pytest.raises(RegistryError, match=r"penalty\.latnt_dim.*latent_dim"):
        pen.from_config({"kind": "ard", "latnt_dim": 2})


def test_a_kind_cannot_be_taken_twice():
    with pytest.raises(RegistryError, match="already taken"):
        pen.register(type("Other", (pen.ARDPenalty,), {}))
