"""What rows and atoms are worth adds up to V."""

import numpy as np
import pytest

from reml_sae import SAEManifold
from reml_sae import penalties as pen
from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_manifolds
from reml_sae.engine import Theta, criterion
from reml_sae.manifolds import Circle, Euclidean, Interval
from reml_sae.models import PenaltyTerm, SAEManifoldModel
from reml_sae.models.sae.decoder_prior import DecoderPrior
from reml_sae.models.sae.point import SAEPoint
from reml_sae.models.sae.rows import row_evidence
from tests.models.sae.systems import build

CASES = {
    "circle": lambda: build([Circle(2)]),
    "line": lambda: build([Euclidean(1, 1)], dispersion=0.5),
    "line that a penalty owns": lambda: build([Euclidean(1, 1)], dispersion=0.5, ard=True),
    "two that penalties own": lambda: build([Euclidean(1, 2), Interval(6)], dispersion=0.1,
                                            ard=True),
    "softmax": lambda: build([Circle(1), Circle(1)], temperature=1.7, seed=5),
    "topk": lambda: build([Circle(1), Circle(2)], assignment="topk", seed=7),
    "threshold gates": lambda: build([Circle(1), Euclidean(1, 1)], assignment="threshold_gate"),
    "amplitudes of several atoms": lambda: build(
        [Circle(1), Euclidean(1, 1), Circle(1)], dispersion=0.5, seed=5,
        assignment={"assignment": "topk", "n_active": 2}),
}


@pytest.mark.parametrize("name", CASES)
def test_row_evidence_adds_up_to_the_criterion(name):
    """V less what belongs to the decoders, and to all rows alike."""
    model = CASES[name]()
    rho = model.initial_rho()
    found = criterion(model, rho, gradient=False, tol=1e-9)
    theta = found.inner.theta
    point = SAEPoint(model, theta, rho)
    rows = row_evidence(model, theta, rho).sum()
    # the rest, from the model without its rows
    sign, blocks = np.linalg.slogdet(point.row_hessian("majorizer"))
    border = found.parts["half_logdet"] - 0.5 * blocks.sum() - point.remainder.values.sum()
    scale, _, _ = point.decoder_prior.scale_correction()
    decoders = point.objective - model.row_objective(theta, rho).sum() - scale
    partition = DecoderPrior(model.rows(np.zeros(0, np.intp)), theta.beta, rho).log_partition()[0]
    shared = len(model.Z) * model.assignment.log_patterns()
    for term in model.terms:
        if term.target == "logits":
            shared += term.penalty.log_partition(term.rho(rho), len(model.Z))[0]
    size = theta.beta.size
    rest = (decoders + border + scale + partition + shared
            - 0.5 * size * np.log(2.0 * np.pi) - model.log_multiplicity)
    assert (sign > 0.0).all()
    assert rows + rest == pytest.approx(found.value, abs=1e-8 * abs(found.value))


def test_evidence_of_an_atom_means_the_same_under_every_assignment():
    """Two separated circles: nats that a curve earns over its centre, by softmax and top-k."""
    plant = planted_manifolds(160, 6, ["circle", "circle"], noise_sd=0.1, random_state=0)
    values = []
    for assignment in ("softmax", "topk"):
        model = SAEManifold(n_atoms=2, topology=Circle(1), assignment=assignment,
                            noise="isotropic").fit(plant.Z)
        assert model.converged_
        values.append(sorted(atom.evidence for atom in model.atoms_))
    np.testing.assert_allclose(*values, rtol=0.2)


def test_evidence_of_a_sole_atom_is_that_of_its_rows():
    """Against rows at the centre alone, in closed form."""
    plant = planted_manifolds(100, 3, ["circle"], noise_sd=0.2, random_state=1)
    model = SAEManifold(n_atoms=1, topology=Circle(1)).fit(plant.Z)
    sae = model.build_model(plant.Z)
    theta, rho = sae.initial_theta(), model.rho_
    phi = np.exp(rho[sae.outer.dispersion])
    square = ((sae.Z - theta.beta[0]) ** 2).sum(axis=1)
    centre = 0.5 * square / phi + 1.5 * np.log(2.0 * np.pi * phi)
    full = sae.row_quadrature(theta.beta, rho).row_values()
    assert model.atoms_[0].evidence == pytest.approx((centre - full).sum(), rel=1e-9)


def test_a_penalty_on_coordinates_counts_once():
    """A learned prior takes the place of the manifold's: its volume is not added to it."""
    model = build([Euclidean(1, 1)], dispersion=0.5, ard=True)
    rho = model.initial_rho()
    own = next(term for term in model.terms if term.target == "coordinates")
    assert isinstance(own, PenaltyTerm)
    assert isinstance(own.penalty, pen.ARDPenalty)
    expected = own.penalty.log_partition(own.rho(rho), 1)[0]
    prior = model.joint_at(model.initial_theta(), rho).row_prior
    np.testing.assert_allclose(prior.log_partitions(), model.active[:, 0] * expected)


@pytest.mark.parametrize("log_precision", [-1.0, 1.0, 3.0])
def test_a_shut_threshold_gate_has_the_mass_below_its_threshold(log_precision):
    """Against a sum over the pre-activation, of rows that an open gate cannot explain."""
    precision, phi = np.exp(log_precision), 1e-3
    gate = get_assignment({"assignment": "threshold_gate", "threshold": 0.5, "width": 0.02}, 1)
    beta = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0]])  # a circle, and the intercept
    model = SAEManifoldModel(np.zeros((3, 2)), [Circle(1)], [], np.zeros((3, 1), bool),
                             Theta(np.zeros((3, 2)), beta), np.array([log_precision, np.log(phi)]),
                             assignment=gate)
    z = np.linspace(-12.0, 12.0, 48001) / np.sqrt(precision)
    a = gate.amplitudes(z[:, None], np.ones((len(z), 1), bool)).a[:, 0]
    # with the angle integrated out the loss of a row at the centre depends on the amplitude alone
    log_density = -0.5 * (4.0 * a) ** 2 / phi - 0.5 * precision * z**2
    mass = np.log(np.exp(log_density).sum() * (z[1] - z[0]) * np.sqrt(precision / (2.0 * np.pi)))
    exact = np.log(2.0 * np.pi * phi) - mass
    found = row_evidence(model, model.initial_theta(), model.initial_rho())
    # the gate opens over a width of .02 about the threshold
    np.testing.assert_allclose(found, exact, atol=0.05)
