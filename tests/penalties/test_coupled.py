"""Traps of the kinds that couple rows."""

from itertools import pairwise, product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties import sheaf
from reml_sae.penalties._smooth_l1 import log_centred_partition
from reml_sae.penalties.isometry import IsometryPenalty
from reml_sae.penalties.ivae import IvaeRidgeMeanGauge
from reml_sae.penalties.monotonicity import MonotonicityPenalty
from reml_sae.penalties.ordered_beta_bernoulli import OrderedBetaBernoulliPenalty, _steps
from reml_sae.penalties.sheaf import SheafConsistencyPenalty
from reml_sae.penalties.total_variation import TotalVariationPenalty
from tests.penalties.cases.coupled import CASES, chain, frames, graph, uniform_sheaf

NONE = np.zeros(0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_curvature_is_the_operator(case):
    """`curvature` against hvp, which some kinds compute in another way."""
    penalty, rho = case.penalty, case.at_rho
    eye = np.eye(case.target.size)
    for which, product_with in (("exact", penalty.hvp), ("majorizer", penalty.psd_majorizer_hvp)):
        dense = penalty.curvature(case.target, rho, which).to_dense()
        expected = np.array([product_with(case.target, rho, e) for e in eye])
        np.testing.assert_allclose(dense, expected, atol=1e-12 * np.abs(expected).max())


# --- total variation ------------------------------------------------------------------------


def test_forests_are_proper_and_cycles_are_not():
    assert graph([[0, 1], [1, 2], [4, 3]], latent_dim=1).is_learnable
    assert graph([[0, 1], [1, 2], [4, 3]], latent_dim=1, n_nodes=9).is_normalised
    assert not graph([[0, 1], [1, 2], [2, 0], [4, 3]], latent_dim=1).is_normalised
    assert not graph([[0, 1], [1, 2], [2, 0]], latent_dim=1, n_nodes=9).is_normalised
    with pytest.raises(RegistryError, match="learnable"):
        graph([[0, 1], [1, 2], [2, 0]], latent_dim=1, learnable=True)


def test_a_chain_is_a_chain_however_it_is_given():
    line = TotalVariationPenalty(latent_dim=2, eps=0.1)
    given = graph(chain(6), latent_dim=2, eps=0.1)
    target, rho = np.random.default_rng(0).normal(size=(6, 2)), np.array([1.0])
    assert line.value(target, rho) == pytest.approx(given.value(target, rho), rel=1e-14)
    assert line.log_partition(rho, 6)[0] == pytest.approx(given.log_partition(rho, 6)[0])


@pytest.mark.parametrize("edges", [chain(6), [[0, 1], [0, 2], [5, 0], [0, 3], [4, 0]],
                                   [[0, 4], [1, 4], [5, 2]]])
def test_total_variation_far_below_eps_is_the_quadratic_form_of_the_graph(edges):
    stiff = graph(edges, latent_dim=2, eps=1.0, weight=1e7, n_nodes=6)
    incidence = np.zeros((len(edges), 6))
    for row, (u, v) in zip(incidence, edges, strict=True):
        row[[u, v]] = -1.0, 1.0
    spectrum = np.linalg.eigvalsh(incidence.T @ incidence)
    spectrum = spectrum[spectrum > 1e-10]
    expected = len(edges) * np.log(2 * np.pi) - np.log(1e7 * spectrum).sum()
    assert stiff.log_partition(np.zeros(1), 6)[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("w", [1e-5, 1e-3, 1.0, 30.0, 1e4, 1e5, 1e7])
@pytest.mark.parametrize("eps", [1e-6, 1e-3, 1.0])
def test_smooth_l1_normaliser(w, eps):
    value, slope = log_centred_partition(np.array(w), eps)
    unit = 1.0 / w + np.sqrt(eps / w)  # length over which the density falls

    def density(x):
        return np.exp(-w * x * unit * (x * unit / (np.hypot(x * unit, eps) + eps)))

    def penalty(x):
        return w * x * unit * (x * unit / (np.hypot(x * unit, eps) + eps)) * density(x)

    def total(function):
        knots = np.concatenate([[0.0], np.geomspace(1e-8, 60.0, 40)])
        return sum(quad(function, a, b, epsabs=0.0, epsrel=1e-12)[0]
                   for a, b in pairwise(knots))

    mass = total(density)
    assert value == pytest.approx(np.log(2.0 * unit * mass), abs=1e-9)
    assert slope == pytest.approx(-total(penalty) / mass, abs=1e-9)


@pytest.mark.parametrize("rho", [-700.0, 700.0])
def test_extreme_strengths_are_finite(rho):
    rho = np.array([rho])
    for penalty, n in ((TotalVariationPenalty(latent_dim=1), 5),
                       (uniform_sheaf(chain(4), np.eye(2)), 4),
                       (IvaeRidgeMeanGauge(latent_dim=1, aux=np.ones((4, 1)), ridge=1.0), 4)):
        value, slope = penalty.log_partition(rho, n)
        assert np.isfinite(value) and np.isfinite(slope).all()
    gates = OrderedBetaBernoulliPenalty(k_atoms=2)
    for target in (np.zeros((3, 2)), np.full((3, 2), -900.0), np.full((3, 2), 900.0)):
        for result in (gates.value(target, rho), gates.grad_target(target, rho),
                       gates.grad_rho(target, rho), gates.hvp(target, rho, np.ones(6)),
                       gates.psd_majorizer_diag(target, rho), gates.grad_target_rho(target, rho)):
            assert np.isfinite(result).all()


# --- sheaf ----------------------------------------------------------------------------------


def dense_normaliser(penalty, target, rank):
    laplacian = penalty.curvature(target, penalty.initial_rho(), "exact").to_dense()
    values = np.linalg.eigvalsh(laplacian)
    assert (values[: len(values) - rank] < 1e-10).all()
    return 0.5 * rank * np.log(2 * np.pi) - 0.5 * np.log(values[len(values) - rank:]).sum()


def test_sheaf_rank():
    rng = np.random.default_rng(1)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    eye = np.eye(2)
    cycle = [[0, 1], [1, 2], [2, 0]]

    def around(last):
        return SheafConsistencyPenalty(edges=cycle, restrictions_u=[eye, eye, last],
                                       restrictions_v=[eye, eye, eye])

    cases = [
        (uniform_sheaf(cycle, eye, n_nodes=4), 4),
        (uniform_sheaf(cycle, [[1.0, 2.0]]), 2),  # R of rank one
        (around(eye), 4),
        (around(turn), 6),  # no vector returns to itself: no section but zero
        (around(np.diag([1.0, 2.0])), 5),
        (SheafConsistencyPenalty(edges=[[0, 1], [3, 2], [5, 4], [4, 6]], n_nodes=8,
                                 restrictions_u=rng.normal(size=(4, 1, 3)),
                                 restrictions_v=rng.normal(size=(4, 1, 3))), 4),
    ]
    for penalty, rank in cases:
        target = np.zeros((penalty.n_rows_expected(), penalty.width()))
        value, slope = penalty.log_partition(np.zeros(1), len(target))
        assert slope == pytest.approx(-0.5 * rank)
        assert value == pytest.approx(dense_normaliser(penalty, target, rank), abs=1e-9)


def test_the_three_routes_to_the_spectrum_agree(monkeypatch):
    rng = np.random.default_rng(2)
    edges = [[0, 3], [3, 5], [5, 0], [1, 2], [7, 6], [6, 8]]
    matrix = rng.normal(size=(3, 2))
    penalty = uniform_sheaf(edges, matrix, n_nodes=10)
    rank, log_det = penalty._uniform_spectrum()
    dense_rank, dense_log_det = penalty._dense_spectrum()
    assert (rank, log_det) == (dense_rank, pytest.approx(dense_log_det, abs=1e-10))
    monkeypatch.setattr(sheaf, "BATCH_ENTRIES", 1)
    assert penalty._dense_spectrum()[1] == pytest.approx(dense_log_det, abs=1e-10)


def test_a_large_sheaf():
    n = 100_000
    uniform = uniform_sheaf(chain(n), [[2.0]])
    value, slope = uniform.log_partition(np.zeros(1), n)
    # spanning tree: |L_graph|_+ = n, times 4 for each of n - 1 directions
    expected = 0.5 * ((n - 1) * np.log(2 * np.pi / 4.0) - np.log(n))
    assert value == pytest.approx(expected, abs=1e-6)
    assert slope == pytest.approx(-0.5 * (n - 1))
    pairs = chain(n)[::2]
    values = np.random.default_rng(3).uniform(1.0, 2.0, size=(2, n // 2, 1, 1))
    small = SheafConsistencyPenalty(edges=pairs, restrictions_u=values[0], restrictions_v=values[1])
    expected = 0.5 * (n // 2) * np.log(2 * np.pi) - 0.5 * np.log((values**2).sum(0)).sum()
    assert small.log_partition(np.zeros(1), n)[0] == pytest.approx(expected, rel=1e-12)
    other = {"edges": chain(n), "restrictions_u": np.ones((n - 1, 1, 1)),
             "restrictions_v": 2.0 * np.ones((n - 1, 1, 1))}
    with pytest.raises(InputError, match=r"^learnable: .*normaliser is not available"):
        SheafConsistencyPenalty(**other)
    fixed = SheafConsistencyPenalty(**other, learnable=False)
    assert not fixed.is_normalised and fixed.log_partition(NONE, n) is None
    assert np.isfinite(fixed.value(np.ones((n, 1)), NONE))


# --- gauge ----------------------------------------------------------------------------------


def test_ivae_normaliser_and_rotation():
    rng = np.random.default_rng(4)
    for aux in (rng.normal(size=(5, 2)), rng.normal(size=(3, 7)), np.zeros((4, 2)),
                np.ones((4, 3))):
        n = len(aux)
        penalty = IvaeRidgeMeanGauge(latent_dim=2, aux=aux, ridge=0.3)
        matrix = np.eye(n) - aux @ np.linalg.solve(aux.T @ aux + 0.3 * np.eye(aux.shape[1]), aux.T)
        expected = n * np.log(2 * np.pi) - np.linalg.slogdet(matrix)[1]
        assert penalty.log_partition(np.zeros(1), n)[0] == pytest.approx(expected, abs=1e-10)
        t = rng.normal(size=(n, 2))
        turned = t @ np.array([[0.6, -0.8], [0.8, 0.6]])
        assert penalty.value(t, np.zeros(1)) == pytest.approx(penalty.value(turned, np.zeros(1)))
        assert penalty.restrict(np.array([2, 0]), n).n_rows_expected() == 2


# --- gates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1e-3, 0.7, 5.0, 1e6])
def test_gates_sum_to_one(alpha):
    penalty = OrderedBetaBernoulliPenalty(k_atoms=2, temperature=0.5)
    total = sum(np.exp(-penalty.value(400.0 * (2.0 * np.reshape(gates, (4, 2)) - 1.0),
                                      np.array([np.log(alpha)])))
                for gates in product((0, 1), repeat=8))
    assert total == pytest.approx(1.0, abs=1e-10)
    assert penalty.log_partition(np.array([np.log(alpha)]), 4)[0] == 0.0


def test_gates_at_large_alpha_keep_their_derivative():
    """As alpha grows, a = alpha / (k + 1) and dP / dlog alpha tends to sum (N - M_k)."""
    penalty = OrderedBetaBernoulliPenalty(k_atoms=2)
    target = np.random.default_rng(5).normal(size=(50, 2))
    off = (1.0 / (1.0 + np.exp(target))).sum()
    for rho in (18.0, 40.0, 300.0):
        slope = penalty.grad_rho(target, np.array([rho]))[0]
        assert slope == pytest.approx(off, rel=1e-4)
        step = 0.01
        difference = (penalty.value(target, np.array([rho + step]))
                      - penalty.value(target, np.array([rho - step]))) / (2 * step)
        assert slope == pytest.approx(difference, rel=1e-6)


def test_steps_meet_where_the_series_begins():
    y = np.array([0.0, 0.3, 40.0, 5e4])
    for below, above in zip(_steps(np.nextafter(1e3, 0.0) + 0.0 * y, y), _steps(1e3 + 0.0 * y, y),
                            strict=True):
        np.testing.assert_allclose(below, above, rtol=1e-10, atol=1e-12)


def test_gates_against_the_formula_with_many_rows():
    penalty = OrderedBetaBernoulliPenalty(k_atoms=1, weight=3.0)
    target = np.where(np.arange(1000)[:, None] < 300, 40.0, -40.0)
    a = 3.0
    expected = -np.log(a) - gammaln(300 + a) - gammaln(701.0) + gammaln(1001 + a)
    assert penalty.value(target, np.zeros(1)) == pytest.approx(expected, rel=1e-12)


def test_gate_majorizer_is_near_the_positive_part():
    penalty = OrderedBetaBernoulliPenalty(k_atoms=3, temperature=0.5)
    target = np.random.default_rng(6).normal(size=(40, 3))
    z = 1.0 / (1.0 + np.exp(-target / 0.5))
    local = np.einsum("nkk->nk", penalty.curvature(target, np.zeros(1), "exact").blocks)
    excess = penalty.psd_majorizer_diag(target, np.zeros(1)).reshape(-1, 3) - np.maximum(local, 0)
    assert (excess > 0).all() and (excess <= 0.05 * z * (1 - z) / 0.25 + 1e-12).all()


# --- isometry -------------------------------------------------------------------------------


def test_isometry_is_free_of_scale_and_rotation():
    penalty = IsometryPenalty(n_outputs=5, latent_dim=2)
    J = np.random.default_rng(7).normal(size=(4, 5, 2))
    value = penalty.value(J, NONE)
    for scale in (1e-9, -3.0, 1e6):
        assert penalty.value(scale * J.reshape(4, 10), NONE) == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(scale * penalty.grad_target(scale * J, NONE),
                                   penalty.grad_target(J, NONE), rtol=1e-10)
    turned = J @ np.array([[0.6, -0.8], [0.8, 0.6]])
    assert penalty.value(turned, NONE) == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(penalty.hvp(J, NONE, J.ravel()), -penalty.grad_target(J, NONE),
                               atol=1e-12)


def test_isometries_cost_nothing_and_gauss_newton_is_not_enough():
    penalty = IsometryPenalty(n_outputs=4, latent_dim=2)
    J = 3.0 * frames(3, 4, 2)
    assert penalty.value(J, NONE) == pytest.approx(0.0, abs=1e-25)
    hessian = penalty.curvature(J, NONE, "exact").to_dense()
    excess = penalty.curvature(J, NONE, "majorizer").to_dense() - hessian
    # times gbar: Gauss-Newton reaches 4 w, the excess (1 + 4) delta w along J, delta w elsewhere
    assert np.linalg.eigvalsh(hessian).max() * 9.0 > 3.0
    assert np.linalg.eigvalsh(excess).max() * 9.0 < 0.51
    # one row much larger than the rest: the part that Gauss-Newton leaves out is positive
    J = np.array([[[3.0], [0.0]], [[0.1], [0.0]]])
    residual = IsometryPenalty(n_outputs=2, latent_dim=1)
    scaled = (J**2).sum((1, 2)) / (J**2).sum((1, 2)).mean()
    sideways = np.array([0.0, 1.0, 0.0, 0.0])  # the derivative of every residual is zero
    bend = sideways @ residual.hvp(J, NONE, sideways)
    assert scaled[0] > 1.9 and bend > 0.0


# --- wrong parameters -----------------------------------------------------------------------

ONE = np.ones((1, 1, 1))
WRONG = [
    (TotalVariationPenalty, {"latent_dim": 0}, "latent_dim"),
    (TotalVariationPenalty, {"latent_dim": 1, "eps": 0.0}, "eps"),
    (TotalVariationPenalty, {"latent_dim": 1, "difference": "backward"}, "difference"),
    (TotalVariationPenalty, {"latent_dim": 1, "edges": [[0, 1]]}, "edges"),
    (TotalVariationPenalty, {"latent_dim": 1, "n_nodes": 3}, "n_nodes"),
    (TotalVariationPenalty, {"latent_dim": 1, "difference": "graph_edges"}, "edges"),
    *((TotalVariationPenalty, {"latent_dim": 1, "difference": "graph_edges", **wrong}, name)
      for wrong, name in (({"edges": [[0, 1], [2, 2]]}, r"edges\[1\]"),
                          ({"edges": [[0, 1], [2, 1], [1, 0]]}, r"edges\[2\]"),
                          ({"edges": [[0, -1]]}, r"edges\[0\]"),
                          ({"edges": [[0, 1.5]]}, "edges"),
                          ({"edges": []}, "edges"),
                          ({"edges": [[0, 5]], "n_nodes": 4}, "n_nodes"),
                          ({"edges": [[0, 1]], "n_nodes": 0}, "n_nodes"))),
    (MonotonicityPenalty, {"latent_dim": 0}, "latent_dim"),
    (MonotonicityPenalty, {"latent_dim": 1, "direction": 0}, "direction"),
    (MonotonicityPenalty, {"latent_dim": 1, "direction": 2}, "direction"),
    (MonotonicityPenalty, {"latent_dim": 1, "eps": -1.0}, "eps"),
    (MonotonicityPenalty, {"latent_dim": 1, "weight": -1.0}, "weight"),
    *((SheafConsistencyPenalty,
       {"edges": [[0, 1]], "restrictions_u": ONE, "restrictions_v": ONE, **wrong}, name)
      for wrong, name in (({"edges": [[0, 0]]}, r"edges\[0\]"),
                          ({"restrictions_u": np.ones((2, 1, 1))}, "restrictions_u"),
                          ({"restrictions_u": np.ones((1, 0, 1))}, "restrictions_u"),
                          ({"restrictions_v": np.ones((1, 1))}, "restrictions_v"),
                          ({"restrictions_v": np.ones((1, 1, 2))}, "restrictions_v"),
                          ({"restrictions_v": np.full((1, 1, 1), np.nan)}, "restrictions_v"),
                          ({"n_nodes": 1}, "n_nodes"))),
    (IvaeRidgeMeanGauge, {"latent_dim": 1, "aux": [1.0, 2.0]}, "aux"),
    (IvaeRidgeMeanGauge, {"latent_dim": 1, "aux": np.zeros((3, 0))}, "aux"),
    (IvaeRidgeMeanGauge, {"latent_dim": 0, "aux": [[1.0]]}, "latent_dim"),
    (IvaeRidgeMeanGauge, {"latent_dim": 1, "aux": [[1.0]], "ridge": 0.0}, "ridge"),
    (OrderedBetaBernoulliPenalty, {"k_atoms": 0}, "k_atoms"),
    (OrderedBetaBernoulliPenalty, {"k_atoms": 2, "temperature": 0.0}, "temperature"),
    (IsometryPenalty, {"n_outputs": 0, "latent_dim": 1}, "n_outputs"),
    (IsometryPenalty, {"n_outputs": 2, "latent_dim": 0}, "latent_dim"),
    *((IsometryPenalty, {"n_outputs": 2, "latent_dim": 1, "metric": metric}, "metric")
      for metric in (np.eye(3), np.ones((2, 2)), [[1.0, 0.5], [0.0, 1.0]], np.ones(2),
                     [[1.0, 0.0], [0.0, np.inf]], np.zeros((0, 2, 2)))),
]


@pytest.mark.parametrize(("cls", "fields", "name"), WRONG,
                         ids=[f"{cls.KIND_TAG}-{i}" for i, (cls, _, _) in enumerate(WRONG)])
def test_wrong_parameters_are_named(cls, fields, name):
    with pytest.raises(InputError, match=f"^{name}"):
        cls(**fields)
    plain = {key: np.asarray(value).tolist() for key, value in fields.items()}
    with pytest.raises(RegistryError, match=f"^penalty.*{name}"):
        pen.from_config({"kind": cls.KIND_TAG, **plain})


def test_wrong_targets_are_refused():
    with pytest.raises(InputError, match="7 rows"):
        graph([[0, 1], [2, 6]], latent_dim=1).value(np.zeros((6, 1)), np.zeros(1))
    with pytest.raises(InputError, match="2 rows"):
        uniform_sheaf([[0, 1]], [[1.0]]).value(np.zeros((3, 1)), np.zeros(1))
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        OrderedBetaBernoulliPenalty(k_atoms=3).value(np.zeros((4, 2)), np.zeros(1))
    with pytest.raises(InputError, match=r"\(n, 4\)"):
        IsometryPenalty(n_outputs=2, latent_dim=2).value(np.zeros((5, 3)), NONE)


def test_restriction_to_some_rows():
    target = np.random.default_rng(8).normal(size=(5, 2))
    whole = graph([[0, 1], [1, 2], [3, 4]], latent_dim=2, weight=2.0)
    part = whole.restrict(np.array([4, 1, 2]), 5)
    assert part.edges.tolist() == [[1, 2]] and part.n_rows_expected() == 3
    alone = graph([[1, 2]], latent_dim=2, weight=2.0, n_nodes=5)
    assert part.value(target[[4, 1, 2]], np.zeros(1)) == pytest.approx(
        alone.value(target, np.zeros(1)))
    with pytest.raises(InputError, match=r"^edges"):
        whole.restrict(np.array([0, 2]), 5)
    sections = SheafConsistencyPenalty(
        edges=[[0, 1], [1, 2], [3, 4]], restrictions_u=np.arange(12.0).reshape(3, 2, 2),
        restrictions_v=np.ones((3, 2, 2)))
    part = sections.restrict(np.array([1, 2]), 5)
    np.testing.assert_array_equal(part.restrictions_u, [[[4.0, 5.0], [6.0, 7.0]]])
    assert part.n_rows_expected() == 2
    metrics = np.arange(1.0, 6.0)[:, None, None] * np.eye(2)
    stretch = IsometryPenalty(n_outputs=2, latent_dim=1, metric=metrics)
    assert stretch.restrict(np.array([3]), 5).metric.tolist() == [[[4.0, 0.0], [0.0, 4.0]]]
