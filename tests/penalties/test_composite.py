"""Sums of penalties, and the joint normaliser of quadratic ones."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import dblquad

from reml_sae import penalties as pen
from reml_sae.errors import InputError, RegistryError
from reml_sae.penalties.composite import CompositePenalty, _log_determinant

RNG = np.random.default_rng(4)
ENTROPY = pen.SoftmaxAssignmentSparsityPenalty(k_atoms=3, weight=2.0)
SHARP = pen.SoftmaxAssignmentSparsityPenalty(k_atoms=3, temperature=0.5, learnable=False)
ARD = pen.ARDPenalty(latent_dim=3)
S1, S2 = np.diag([0.0, 0.0, 1.0, 3.0]), np.outer([0.0, 1.0, -2.0, 1.0], [0.0, 1.0, -2.0, 1.0])
QUADRATIC = pen.QuadraticPenalty(S=S1) + pen.QuadraticPenalty(S=S2, weight=0.5)
SCHEDULE = pen.ScalarWeightSchedule(w_start=4.0, w_end=1.0, kind="linear", steps=2)

SUMS = [
    (ENTROPY + SHARP, RNG.normal(size=(4, 3))),
    (ARD + pen.ARDPenalty(latent_dim=3, learnable=False), RNG.normal(size=(4, 3))),
    (QUADRATIC, RNG.normal(size=(4, 2))),
    (CompositePenalty(parts=[ENTROPY]), RNG.normal(size=(4, 3))),
]
every_sum = pytest.mark.parametrize(("composite", "target"), SUMS,
                                    ids=lambda x: x.name() if isinstance(x, pen.Penalty) else "")


@every_sum
def test_a_sum_is_the_sum_of_its_parts(composite, target):
    rho = RNG.normal(size=composite.rho_count())
    v = RNG.normal(size=target.size)
    start, totals = 0, {}
    for part in composite.expand():
        own = rho[start:start + part.rho_count()]
        start += part.rho_count()
        for name, value in {
            "value": part.value(target, own), "grad_target": part.grad_target(target, own),
            "hvp": part.hvp(target, own, v),
            "psd_majorizer_hvp": part.psd_majorizer_hvp(target, own, v),
            "psd_majorizer_diag": part.psd_majorizer_diag(target, own),
        }.items():
            totals[name] = totals.get(name, 0.0) + value
    assert start == rho.size
    for name, total in totals.items():
        extra = (v,) if name.endswith("hvp") else ()
        np.testing.assert_allclose(getattr(composite, name)(target, rho, *extra), total)


@every_sum
def test_derivatives(composite, target):
    rho = RNG.normal(size=composite.rho_count())
    report = pen.check_penalty(composite, target, rho)
    assert report.passed, str(report)


@every_sum
def test_outer_parameters_are_those_of_the_parts_in_order(composite, target):
    parts = composite.expand()
    count = sum(part.rho_count() for part in parts)
    assert composite.rho_count() == count == len(composite.rho_labels())
    assert len(set(composite.rho_labels())) == count
    assert composite.initial_rho().shape == (count,)
    assert composite.rho_bounds().shape == (count, 2)
    assert composite.strengths(np.zeros(count)).shape == (composite.n_strengths(),)
    assert composite.is_learnable == (count > 0)
    with pytest.raises(InputError, match=f"rho must have {count} entries"):
        composite.value(target, np.zeros(count + 1))


@every_sum
def test_round_trip(composite, target):
    config = composite.to_config()
    assert set(config) == {"kind", "parts"}
    again = pen.from_config(json.loads(json.dumps(config)))
    assert again == composite and hash(again) == hash(composite)
    assert again != ENTROPY


def test_labels_tell_parts_and_axes_apart():
    assert (ENTROPY + SHARP).rho_labels() == (".0",)
    two_axes = pen.ARDPenalty(latent_dim=2) + pen.ARDPenalty(latent_dim=2)
    assert two_axes.rho_labels() == (".0.0", ".0.1", ".1.0", ".1.1")


def test_sums_of_sums_are_flat():
    composite = (ENTROPY + SHARP) + ENTROPY
    assert composite.expand() == (ENTROPY, SHARP, ENTROPY)
    assert composite == ENTROPY + (SHARP + ENTROPY)
    assert composite == CompositePenalty(parts=[ENTROPY.to_config(), SHARP + ENTROPY])
    assert composite.name().count("+") == 2
    assert replace(composite, parts=(ARD,)).expand() == (ARD,)


def test_facts_about_the_parts():
    composite = ENTROPY + SHARP
    assert composite.tier() is composite.dispatch_tier() is pen.PenaltyTier.PSI
    assert composite.acts_on() == "logits"
    assert composite.ROW_BLOCK_DIAGONAL and not QUADRATIC.ROW_BLOCK_DIAGONAL
    assert not CompositePenalty.ROW_BLOCK_DIAGONAL
    assert composite.is_smooth and not composite.is_quadratic
    assert CompositePenalty(parts=[pen.QuadraticPenalty(S=S1)]).is_quadratic
    assert QUADRATIC.hessian_diag(np.ones((4, 1)), np.zeros(2)) is None
    np.testing.assert_allclose((ARD + ARD).hessian_diag(np.ones((2, 3)), np.zeros(6)), 2.0)


def test_a_product_of_priors_has_no_known_normaliser():
    composite = ENTROPY + SHARP
    assert not composite.is_normalised and composite.is_learnable
    assert composite.log_partition(np.zeros(1), 5) is None
    alone = CompositePenalty(parts=[ENTROPY])
    assert alone.is_normalised
    assert alone.log_partition(np.zeros(1), 5)[0] == ENTROPY.log_partition(np.zeros(1), 5)[0]


def test_quadratic_parts_are_normalised_together():
    rho = np.array([0.4, -0.3])
    matrix = np.exp(0.4) * S1 + 0.5 * np.exp(-0.3) * S2
    eigenvalues = np.linalg.eigvalsh(matrix)[1:]
    expected = 3 * 0.5 * (3 * np.log(2 * np.pi) - np.log(eigenvalues).sum())
    value, slope = QUADRATIC.log_partition(rho, 3)
    assert QUADRATIC.is_normalised and QUADRATIC.is_learnable
    assert value == pytest.approx(expected, rel=1e-12)
    assert slope.shape == (2,)

    plane = pen.QuadraticPenalty(S=[[1.0, 0.0], [0.0, 0.0]]) + pen.QuadraticPenalty(
        S=[[1.0, 1.0], [1.0, 2.0]])
    mass, _ = dblquad(lambda y, x: np.exp(-plane.value(np.array([x, y]), rho)), -9, 9, -9, 9)
    assert plane.log_partition(rho, 1)[0] == pytest.approx(np.log(mass), abs=1e-7)


def test_a_held_part_has_no_slope():
    held = pen.QuadraticPenalty(S=S1, learnable=False) + pen.QuadraticPenalty(S=S2)
    value, slope = held.log_partition(np.array([0.2]), 2)
    both = pen.QuadraticPenalty(S=S1) + pen.QuadraticPenalty(S=S2)
    expected, slopes = both.log_partition(np.array([0.0, 0.2]), 2)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(slope, slopes[1:])


@pytest.mark.parametrize("logs", [(0.0, 0.0, 0.0), (18.0, -12.0, 3.0), (-12.0, 18.0, 0.0),
                                  (300.0, -300.0, 0.0), (-700.0, 0.0, 700.0)])
def test_the_determinant_of_strengths_that_differ_by_orders(logs):
    # overlapping ranges: exact by the determinant of a triangular factor, |A| = prod of squares
    rng = np.random.default_rng(1)
    x, y, z = (rng.normal(size=(size, 6)) for size in (2, 3, 2))
    matrices, logs = [x.T @ x, y.T @ y, z.T @ z], np.array(logs)
    rank, value, slope = _log_determinant(matrices, logs)
    # Cauchy-Binet: sum over six of the seven rows, in logarithms
    rows, weights = np.vstack([x, y, z]), np.repeat(logs, (2, 3, 2))
    terms, shares = [], []
    for left_out in range(7):
        kept = np.delete(np.arange(7), left_out)
        terms.append(2 * np.linalg.slogdet(rows[kept])[1] + weights[kept].sum())
        shares.append([np.isin(kept, block).sum() for block in ([0, 1], [2, 3, 4], [5, 6])])
    expected = np.logaddexp.reduce(terms)
    assert rank == 6
    assert value == pytest.approx(expected, rel=1e-12, abs=1e-9)
    np.testing.assert_allclose(slope, np.exp(np.array(terms) - expected) @ np.array(shares),
                               atol=1e-9)


def test_a_part_without_any_roughness_changes_nothing():
    flat = pen.HarmonicRoughnessPenalty(period=3)
    value, slope = (flat + pen.QuadraticPenalty(S=np.eye(3))).log_partition(np.array([5.0, 0.0]), 1)
    assert value == pytest.approx(1.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(slope, [0.0, -1.5])
    assert (flat + flat).log_partition(np.zeros(2), 4)[0] == 0.0


def test_schedules_apply_to_the_parts():
    composite = pen.ARDPenalty(latent_dim=3, weight_schedule=SCHEDULE) + ARD
    assert [part.weight for part in composite.apply_schedule(1).expand()] == [2.5, 1.0]
    assert composite.settled() == ARD + ARD
    assert composite.apply_schedule(1).rho_count() == composite.rho_count()
    with pytest.raises(InputError, match="weight_schedule belongs to the parts"):
        composite.with_weight_schedule(SCHEDULE)


@pytest.mark.parametrize(("values", "message"), [
    ({"parts": ()}, "^parts must be a list"),
    ({"parts": ARD}, "^parts must be a list"),
    ({"parts": {"kind": "ard"}}, "^parts must be a list"),
    ({"parts": [ARD, 3]}, r"^parts\[1\] must be a Penalty"),
    ({"parts": [ARD, pen.QuadraticPenalty(S=S1)]}, r"^parts\[1\] \(quadratic\) acts on decoder"),
    ({"parts": [ARD, ENTROPY]}, r"^parts\[1\] .*acts on logits but ard on coordinates"),
    ({"parts": [ARD, {"kind": "ard", "latent_dim": 0}]}, r"^parts\[1\]\.latent_dim must be"),
    ({"parts": [pen.QuadraticPenalty(S=S1), pen.QuadraticPenalty(S=np.eye(2))]},
     r"^parts must fit one decoder, got basis sizes \[2, 4\]"),
    ({"parts": [ARD], "weight": 2.0}, "^weight belongs to the parts"),
    ({"parts": [ARD], "weight_schedule": SCHEDULE}, "^weight_schedule belongs to the parts"),
    ({"parts": [ARD], "atom": 0}, "^atom belongs to the parts"),
    ({"parts": [ARD], "learnable": False}, "^learnable belongs to the parts"),
])
def test_wrong_parameters(values, message):
    with pytest.raises(InputError, match=message):
        CompositePenalty(**values)
    with pytest.raises(RegistryError, match=message.replace("^", r"^here\.")):
        pen.from_config({"kind": "composite", **values}, path="here")


def test_only_penalties_add_up():
    with pytest.raises(TypeError):
        ARD + 1
