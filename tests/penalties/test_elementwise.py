"""Traps of the elementwise kinds beyond the contract."""

import numpy as np
import pytest
from scipy.special import gammaln, psi

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties.activation import SmoothThresholdPenalty, TopKActivationPenalty
from reml_sae.penalties.concave import ScadMcpPenalty
from reml_sae.penalties.nested_prefix import NestedPrefixPenalty
from reml_sae.penalties.sparsity import SparsityPenalty

NONE = np.zeros(0)


# --- normalisers -----------------------------------------------------------------------------


def test_smooth_l1_partition_over_all_strengths():
    penalty = SparsityPenalty(eps=0.1)
    for rho in np.log([1e-5, 1e-2, 1.0, 1e3, 1e7]):
        value, slope = penalty.log_partition(np.array([rho]), 1)
        w = np.exp(rho)
        if w * 0.1 < 1e-3:  # exp(-w |x|) on the line
            assert value == pytest.approx(np.log(2.0 / w), abs=1e-5)
            assert slope[0] == pytest.approx(-1.0, abs=1e-5)
        if w * 0.1 > 50.0:  # a Gaussian of precision w / eps, below exp(-w eps)
            assert value == pytest.approx(-0.1 * w + 0.5 * np.log(2.0 * np.pi * 0.1 / w), abs=0.01)
            assert slope[0] == pytest.approx(-0.1 * w - 0.5, rel=1e-4)
        assert np.isfinite(value)


@pytest.mark.parametrize("rho", [-699.0, 699.0])
def test_smooth_l1_partition_at_the_ends_of_the_range(rho):
    for penalty in (SparsityPenalty(eps=0.1), NestedPrefixPenalty(prefixes=(2,), eps=0.1)):
        value, slope = penalty.log_partition(np.array([rho]), 2)
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_log_partition_series_meets_the_gamma_functions():
    penalty = SparsityPenalty(variant="log", eps=1.0)
    for w in (999.0, 1001.0, 3000.0):
        value, slope = penalty.log_partition(np.log([w]), 1)
        exact = 0.5 * np.log(np.pi) + gammaln(w - 0.5) - gammaln(w)
        assert value == pytest.approx(exact, abs=1e-11)
        assert slope[0] == pytest.approx(w * (psi(w - 0.5) - psi(w)), abs=1e-11)
    value, slope = penalty.log_partition(np.log([1e7]), 1)
    assert value == pytest.approx(0.5 * np.log(np.pi / (1e7 - 0.75)), abs=1e-13)
    assert slope[0] == pytest.approx(-0.5, abs=1e-7)


def test_log_is_proper_above_one_half_only():
    penalty = SparsityPenalty(variant="log", weight=0.3)
    assert penalty.is_learnable
    with pytest.raises(InputError, match=r"rho.*1/2"):
        penalty.log_partition(np.zeros(1), 3)
    with pytest.raises(InputError, match=r"rho.*1/2"):
        penalty.log_partition(np.log([0.5 / 0.3]), 3)
    low, high = penalty.rho_bounds()[0]
    for rho in (low, high, penalty.initial_rho()[0]):
        assert low <= rho <= high
        assert np.isfinite(penalty.log_partition(np.array([rho]), 3)[0])
    assert 0.5 < 0.3 * np.exp(low) < 0.50001
    tiny = SparsityPenalty(variant="log", weight=1e-12)
    low, high = tiny.rho_bounds()[0]
    assert low < tiny.initial_rho()[0] < high


def test_log_held_at_one_half_is_improper():
    held = SparsityPenalty(variant="log", weight=0.5, learnable=False)
    assert not held.is_normalised
    assert held.log_partition(NONE, 3) is None
    proper = SparsityPenalty(variant="log", weight=0.51, learnable=False)
    assert proper.is_normalised
    value, slope = proper.log_partition(NONE, 3)
    assert np.isfinite(value) and slope.shape == (0,)


# --- hoyer -----------------------------------------------------------------------------------


def hoyer_curvatures(x):
    penalty = SparsityPenalty(variant="hoyer")
    return [penalty.curvature(x[:, None], NONE, which).to_dense()
            for which in ("exact", "majorizer")]


def test_hoyer_majorizer_is_the_positive_part_of_the_hessian():
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=7), np.array([1.0, 0.0, -2.0, 0.0]), np.array([1.0, 1e-8, 1e-8])):
        exact, majorizer = hoyer_curvatures(x)
        values, vectors = np.linalg.eigh(exact)
        positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
        np.testing.assert_allclose(majorizer, positive, atol=1e-12 * np.abs(exact).max())


def test_hoyer_of_zero_and_of_one_entry_vanishes():
    penalty = SparsityPenalty(variant="hoyer")
    for x in (np.zeros((3, 1)), np.array([[2.0]]), np.full((3, 1), 1e-200)):
        assert penalty.value(x, NONE) == 0.0
        assert not penalty.grad_target(x, NONE).any()
        assert not penalty.hvp(x, NONE, np.ones(x.size)).any()
        assert not penalty.psd_majorizer_diag(x, NONE).any()


def test_hoyer_range_and_structure():
    penalty = SparsityPenalty(variant="hoyer", latent_dim=2)
    assert penalty.value(np.ones((3, 2)), NONE) == pytest.approx(1.0)
    assert penalty.value(np.eye(2), NONE) == pytest.approx(np.sqrt(2.0) - 1.0)
    assert penalty.value(np.array([[3.0, 0.0]]), NONE) == pytest.approx(0.0)
    assert not penalty.ROW_BLOCK_DIAGONAL and SparsityPenalty.ROW_BLOCK_DIAGONAL
    assert SparsityPenalty(variant="log").ROW_BLOCK_DIAGONAL
    assert not penalty.curvature(np.eye(2), NONE, "exact").is_row_block
    assert not penalty.is_smooth
    assert penalty.hessian_diag(np.eye(2), NONE) is None


# --- concave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("variant, ends", [("mcp", (3.3,)), ("scad", (1.1, 3.3))])
def test_concave_branches_join_smoothly(variant, ends):
    penalty = ScadMcpPenalty(variant=variant, gamma=3.0, eps=0.2, weight=1.1)
    for r in ends:
        t = np.sqrt(r**2 - 0.2**2)
        for sign in (-1.0, 1.0):
            below, above = (np.array([[sign * t * (1.0 + step)]]) for step in (-1e-9, 1e-9))
            assert penalty.value(below, NONE) == pytest.approx(penalty.value(above, NONE), abs=1e-8)
            np.testing.assert_allclose(penalty.grad_target(below, NONE),
                                       penalty.grad_target(above, NONE), atol=1e-8)
            np.testing.assert_allclose(penalty.psd_majorizer_diag(below, NONE),
                                       penalty.psd_majorizer_diag(above, NONE), rtol=1e-7)


@pytest.mark.parametrize("variant", ["mcp", "scad"])
def test_concave_is_flat_far_out_and_where_the_weight_is_small(variant):
    penalty = ScadMcpPenalty(variant=variant, eps=0.2)
    assert not penalty.grad_target(np.array([[1e6], [50.0]]), NONE).any()
    below_eps = ScadMcpPenalty(variant=variant, eps=0.2, weight=0.01)
    assert not below_eps.grad_target(np.array([[0.0], [0.1]]), NONE).any()
    assert np.isfinite(below_eps.value(np.zeros((2, 1)), NONE))


def test_concave_weight_is_no_factor_and_no_rho_moves_it():
    t = np.array([[2.0]])
    one, two = (ScadMcpPenalty(weight=w).value(t, NONE) for w in (1.0, 2.0))
    assert two != pytest.approx(2.0 * one)
    assert ScadMcpPenalty().rho_count() == 0
    with pytest.raises(InputError, match="rho"):
        ScadMcpPenalty().value(t, np.zeros(1))


@pytest.mark.parametrize("weight", [1e-5, 1.0, 1e7])
@pytest.mark.parametrize("make", [
    lambda w: SparsityPenalty(weight=w), lambda w: SparsityPenalty(weight=w, variant="log"),
    lambda w: SparsityPenalty(weight=w, variant="hoyer"), lambda w: ScadMcpPenalty(weight=w),
    lambda w: ScadMcpPenalty(weight=w, variant="scad"),
    lambda w: SmoothThresholdPenalty(weight=w, thresholds=[0.3], eps=1e-3),
    lambda w: NestedPrefixPenalty(weight=w, prefixes=[1])])
def test_weights_at_extreme_targets(weight, make):
    penalty = make(weight)
    rho = penalty.initial_rho()
    x = np.array([0.0, 1e-300, 1e-9, -0.3, 0.3, 1e6, -1e6, 1e100])[:, None]
    found = [penalty.value(x, rho), penalty.grad_target(x, rho), penalty.psd_majorizer_diag(x, rho),
             penalty.hvp(x, rho, np.ones(8))]
    assert all(np.isfinite(result).all() for result in found)
    assert (found[2] >= 0.0).all()


# --- activation ------------------------------------------------------------------------------


def test_topk_ties_go_to_the_lower_index():
    penalty = TopKActivationPenalty(latent_dim=4, k=2)
    t = np.array([[1.0, -1.0, 1.0, 1.0], [0.0, 2.0, -2.0, 2.0], [0.0, 0.0, 0.0, 0.0],
                  [1.0, 3.0, -1.0, 0.5]])
    expected = np.array([[1.0, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_array_equal(penalty.hessian_diag(t, NONE).reshape(4, 4), expected)
    np.testing.assert_array_equal(penalty.grad_target(t, NONE).reshape(4, 4), t * expected)


def test_topk_of_all_axes_is_a_ridge():
    penalty = TopKActivationPenalty(latent_dim=3, k=3, weight=2.0)
    t = np.random.default_rng(0).normal(size=(5, 3))
    assert penalty.value(t, NONE) == pytest.approx((t**2).sum())
    assert penalty.is_smooth
    assert not TopKActivationPenalty(latent_dim=3, k=2).is_smooth


def test_threshold_majorizer_is_tight_below_the_threshold():
    penalty = SmoothThresholdPenalty(thresholds=[1.0], eps=0.1)
    t = np.array([[0.5], [0.7]])
    exact, majorizer = penalty.hessian_diag(t, NONE), penalty.psd_majorizer_diag(t, NONE)
    np.testing.assert_allclose(majorizer, exact, rtol=0.01)


# --- decoders --------------------------------------------------------------------------------


def test_sparsity_sees_a_decoder_flat():
    penalty = SparsityPenalty(eps=0.3, target="decoder")
    decoder = np.random.default_rng(0).normal(size=(4, 3))
    assert penalty.rows(decoder).shape == (12, 1)
    assert penalty.grad_target(decoder, np.zeros(1)).reshape(4, 3)[2, 1] == pytest.approx(
        decoder[2, 1] / np.hypot(decoder[2, 1], 0.3))


def test_nested_prefixes_run_over_the_rows_of_a_decoder():
    penalty = NestedPrefixPenalty(prefixes=(1, 3), eps=1e-9, target="decoder")
    decoder = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    found = penalty.grad_rho(decoder, np.zeros(2))
    np.testing.assert_allclose(found, [3.0, 333.0])
    with pytest.raises(InputError, match=r"\(3, p\)"):
        penalty.value(np.ones((2, 3)), np.zeros(2))


@pytest.mark.parametrize("make", [SparsityPenalty,
                                  lambda **k: NestedPrefixPenalty(prefixes=(2,), **k)])
def test_tier_follows_the_target(make):
    for where, tier in (("coordinates", pen.PenaltyTier.PSI), ("decoder", pen.PenaltyTier.BETA)):
        assert make(target=where).tier() is make(target=where).dispatch_tier() is tier


# --- wrong parameters ------------------------------------------------------------------------


@pytest.mark.parametrize("config, field", [
    ({"kind": "sparsity", "variant": "l2"}, "variant"),
    ({"kind": "sparsity", "eps": 0.0}, "eps"),
    ({"kind": "sparsity", "eps": "1"}, "eps"),
    ({"kind": "sparsity", "latent_dim": 0}, "latent_dim"),
    ({"kind": "sparsity", "latent_dim": 2, "target": "decoder"}, "latent_dim"),
    ({"kind": "sparsity", "target": "logits"}, "target"),
    ({"kind": "sparsity", "weight": -1.0}, "weight"),
    ({"kind": "sparsity", "variant": "hoyer", "learnable": True}, "learnable"),
    ({"kind": "sparsity", "variant": "log", "learnable": 1}, "learnable"),
    ({"kind": "scad_mcp", "variant": "lasso"}, "variant"),
    ({"kind": "scad_mcp", "variant": "mcp", "gamma": 1.0}, "gamma"),
    ({"kind": "scad_mcp", "variant": "scad", "gamma": 2.0}, "gamma"),
    ({"kind": "scad_mcp", "eps": -0.1}, "eps"),
    ({"kind": "scad_mcp", "latent_dim": 1.5}, "latent_dim"),
    ({"kind": "scad_mcp", "learnable": True}, "learnable"),
    ({"kind": "topk_activation", "latent_dim": 0}, "latent_dim"),
    ({"kind": "topk_activation", "latent_dim": 2, "k": 3}, "k must"),
    ({"kind": "topk_activation", "latent_dim": 2, "k": 0}, "k must"),
    ({"kind": "smooth_threshold", "thresholds": []}, "thresholds"),
    ({"kind": "smooth_threshold", "thresholds": 1.0}, "thresholds"),
    ({"kind": "smooth_threshold", "thresholds": [1.0, -2.0]}, r"thresholds\[1\]"),
    ({"kind": "smooth_threshold", "thresholds": [1.0, float("nan")]}, r"thresholds\[1\]"),
    ({"kind": "smooth_threshold", "thresholds": [1.0], "eps": 0.0}, "eps"),
    ({"kind": "nested_prefix", "prefixes": []}, "prefixes"),
    ({"kind": "nested_prefix", "prefixes": 3}, "prefixes"),
    ({"kind": "nested_prefix", "prefixes": "12"}, "prefixes"),
    ({"kind": "nested_prefix", "prefixes": [0, 1]}, r"prefixes\[0\]"),
    ({"kind": "nested_prefix", "prefixes": [1, 2.5]}, r"prefixes\[1\]"),
    ({"kind": "nested_prefix", "prefixes": [2, 2]}, r"prefixes\[1\]"),
    ({"kind": "nested_prefix", "prefixes": [1], "eps": None}, "eps"),
    ({"kind": "nested_prefix", "prefixes": [1], "target": "rows"}, "target"),
])
def test_wrong_parameters(config, field):
    values = {key: value for key, value in config.items() if key != "kind"}
    with pytest.raises(InputError, match=f"^{field}"):
        pen.get(config["kind"])(**values)
    with pytest.raises(RegistryError, match=field):
        pen.from_config(config)


@pytest.mark.parametrize("penalty", [
    SparsityPenalty(latent_dim=2), ScadMcpPenalty(latent_dim=2),
    TopKActivationPenalty(latent_dim=2), SmoothThresholdPenalty(thresholds=[1, 2]),
    NestedPrefixPenalty(prefixes=[1, 2])], ids=lambda penalty: penalty.KIND_TAG)
def test_wrong_width(penalty):
    with pytest.raises(InputError, match=rf"{penalty.KIND_TAG}.*\(n, 2\)"):
        penalty.value(np.ones((4, 3)), np.zeros(penalty.rho_count()))
