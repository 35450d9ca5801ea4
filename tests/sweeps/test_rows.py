"""Sums of a sweep against the engine's own quadrature of the same rows at the same state."""

from dataclasses import replace

import numpy as np
import pytest

from reml_sae.assignments import get_assignment
from reml_sae.engine import Theta
from reml_sae.errors import InputError, MissingDependencyError
from reml_sae.manifolds import Circle, Cylinder, Euclidean, Interval, Point, Sphere
from reml_sae.models import SAEManifoldModel
from reml_sae.models.sae.defaults import decoder_penalties
from reml_sae.rows import SerialRows
from reml_sae.sweeps import Fineness, get_backend, sweep
from reml_sae.sweeps.curve_rows import log_gaussian
from reml_sae.sweeps.nodes import check_nodes
from reml_sae.sweeps.state import SweepState, kinds_of_atoms
from reml_sae.sweeps.tables import make_tables
from reml_sae.sweeps.update import gradient

EXACT = Fineness(step=0.4, edge=9.0, curve=100_000, surface=100_000, amplitudes=2000)
ATOMS = {
    "circles": [Circle(1)] * 3,
    "of two kinds": [Circle(2), Interval(5), Circle(2)],
    "a line": [Euclidean(1, 1), Circle(1)],
    "planes": [Euclidean(2, 1), Circle(1), Euclidean(2, 1)],
    "a flat of three": [Euclidean(3, 1), Euclidean(1, 1)],
    "a sphere": [Sphere(1), Circle(1)],
}
PRECISION = {"circles": 30.0, "of two kinds": 1000.0, "a line": 30.0, "planes": 30.0,
             "a flat of three": 10.0, "a sphere": 5000.0}
"""Of log amplitudes: larger ones need more nodes than the engine allows surfaces and splines."""


def system(atoms, seed, n=40, p=5, alpha=30.0, sd=0.5):
    """Rows of random atoms, and the state that they are of; the intercept is not zero."""
    rng = np.random.default_rng(seed)
    kinds = kinds_of_atoms(atoms)
    decoders = tuple(0.6 * rng.normal(size=(len(kind.atoms), kind.manifold.basis_size, p))
                     for kind in kinds)
    strengths = tuple(np.ones((len(kind.atoms), len(kind.penalties))) for kind in kinds)
    state = SweepState(kinds, decoders, strengths, sd**2, alpha)
    offset = 0.3 * rng.normal(size=p)
    labels, Z = rng.integers(len(atoms), size=n), np.empty((n, p))
    for i, k in enumerate(labels):
        points = atoms[k].grid(50)
        f = atoms[k].basis(points[rng.integers(len(points), size=1)])[0]
        f[1:] *= np.exp(rng.normal() / np.sqrt(alpha))
        Z[i] = offset + f @ state.decoder(k) + sd * rng.normal(size=p)
    return Z, state, offset


def engine(Z, atoms, state, offset, labels):
    """The engine's sums over the same rows with the same atoms."""
    beta = np.concatenate([*(state.decoder(k) for k in range(len(atoms))), offset[None]])
    support = labels[:, None] == np.arange(len(atoms))
    assignment = get_assignment("topk", len(atoms))
    width = assignment.dim + sum(atom.latent_dim for atom in atoms)
    rho = np.log([state.amplitude_precision, state.dispersion])
    model = SAEManifoldModel(Z, atoms, [], support, Theta(np.zeros((len(Z), width)), beta), rho,
                             assignment=assignment, integration="quadrature")
    return model.row_quadrature(beta, rho)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ATOMS)
def test_value_and_gradient_are_those_of_the_engine(case, seed):
    atoms = ATOMS[case]
    Z, state, offset = system(atoms, seed, alpha=PRECISION[case], sd=0.9)
    sums, codes = sweep(Z, state, get_backend(precision="float64"), offset=offset,
                        n_candidates=len(atoms), fineness=EXACT)
    known = engine(Z, atoms, state, offset, codes.labels)
    np.testing.assert_allclose(codes.values, known.row_values(), rtol=1e-8, atol=1e-8)
    assert sums.value == pytest.approx(known.row_values().sum(), rel=1e-8)
    flat = [None] * len(atoms)
    for kind, own in zip(state.kinds, gradient(state, sums), strict=True):
        for k, slope in zip(kind.atoms, own, strict=True):
            flat[k] = slope
    expected = known.sums.beta
    np.testing.assert_allclose(np.concatenate(flat), expected[:-1], rtol=1e-8,
                               atol=1e-8 * np.abs(expected).max())
    np.testing.assert_allclose(sum(slope[0] for slope in flat), expected[-1], rtol=1e-7,
                               atol=1e-8 * np.abs(expected).max())
    # half alpha E[u^2] - 1/2 of every row is the derivative in log alpha
    alpha = 0.5 * state.amplitude_precision * sums.amplitude[1] - 0.5 * len(Z)
    assert alpha == pytest.approx(known.sums.outer[0], rel=1e-7, abs=1e-6)


def test_rows_take_the_atom_of_the_highest_evidence():
    """Of rows that every atom might have, the share that the exact evidence gives to another one.

    Scores have the amplitude as if Gaussian, so that near ties may go either way.
    """
    lost = []
    for seed in range(4):
        Z, state, offset = system(ATOMS["circles"], seed, n=150, sd=0.5)
        codes = sweep(Z, state, get_backend(precision="float64"), offset=offset, n_candidates=3,
                      fineness=EXACT)[1]
        values = [engine(Z, ATOMS["circles"], state, offset, np.full(len(Z), k)).row_values()
                  for k in range(3)]
        lost.append(codes.values - np.min(values, axis=0))
    lost = np.concatenate(lost)
    assert lost.min() > -1e-7 and (lost > 0.05).mean() < 0.02 and lost.max() < 1.0


def test_sums_do_not_depend_on_chunks_or_on_candidates_that_are_the_best():
    Z, state, offset = system(ATOMS["of two kinds"], 3, n=200)
    backend = get_backend(precision="float64")
    whole, codes = sweep(Z, state, backend, offset=offset, n_candidates=3)
    backend.elements = 1000  # atoms are scored one by one
    parts, same = sweep(Z, state, backend, offset=offset, n_candidates=3)
    again, _ = sweep(Z, state, backend, offset=offset, candidates=codes.candidates,
                     row_map=SerialRows())
    np.testing.assert_array_equal(codes.labels, same.labels)
    for other in (parts, again):
        assert other.value == pytest.approx(whole.value, rel=1e-12)
        for a, b in zip(other.crossed, whole.crossed, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_float32_is_near_and_deterministic():
    Z, state, offset = system(ATOMS["of two kinds"], 4, n=300)
    narrow = [sweep(Z, state, get_backend(), offset=offset)[0] for _ in range(2)]
    wide = sweep(Z, state, get_backend(precision="float64"), offset=offset)[0]
    assert narrow[0].value == narrow[1].value
    assert narrow[0].value == pytest.approx(wide.value, rel=1e-5)


@pytest.mark.parametrize("case", ATOMS)
def test_torch_gives_the_numbers_of_numpy(case):
    pytest.importorskip("torch", reason="torch is not installed")
    atoms = ATOMS[case]
    Z, state, offset = system(atoms, 5, n=200, alpha=PRECISION[case])
    for precision, near in (("float64", 1e-9), ("float32", 1e-3)):
        numpy = sweep(Z, state, get_backend(precision=precision), offset=offset)
        torch = sweep(Z, state, get_backend("cpu", precision), offset=offset)
        assert torch[0].value == pytest.approx(numpy[0].value, rel=0.01 * near)
        assert (torch[1].labels == numpy[1].labels).all()
        np.testing.assert_allclose(torch[1].amplitudes, numpy[1].amplitudes, atol=near)
        for name in ("crossed", "grams", "shifts"):
            for a, b in zip(*(getattr(found[0], name) for found in (torch, numpy)), strict=True):
                np.testing.assert_allclose(a, b, atol=near * np.abs(b).max())


def test_torch_is_deterministic_and_leaves_the_precision_of_products():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    Z, state, offset = system(ATOMS["of two kinds"], 4, n=300)
    before = torch.get_float32_matmul_precision()
    found = [sweep(Z, state, get_backend("cpu"), offset=offset)[0] for _ in range(2)]
    assert found[0].value == found[1].value
    np.testing.assert_array_equal(found[0].crossed[0], found[1].crossed[0])
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_log_evidence_keeps_its_digits_at_any_precision_of_amplitudes(backend):
    """In float32 against long double, alpha up to its bound: large numbers do not cancel."""
    if backend != "numpy":
        pytest.importorskip("torch", reason="torch is not installed")
    rng, own = np.random.default_rng(0), get_backend(backend)
    pull = np.float32(rng.normal(scale=300.0, size=400))
    lengths = np.float32(rng.uniform(1.0, 800.0, size=400))
    for alpha in (0.2, 30.0, 1.6e5):
        wide = np.maximum(pull.astype(np.longdouble) + alpha, 0.0)
        sharp = lengths.astype(np.longdouble) + alpha
        expected = 0.5 * wide**2 / sharp - 0.5 * np.log(sharp / alpha) - 0.5 * alpha
        found = own.numpy(log_gaussian(own.array(pull), own.array(lengths), alpha, own))
        size = np.abs(pull) + lengths + 0.5 * pull**2 / (lengths + np.float32(alpha))
        assert (np.abs(found - expected) / size).max() < 1e-6


def test_torch_is_an_extra():
    try:
        import torch  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"reml-sae\[torch\]"):
            get_backend("cuda")


def test_atoms_without_nodes_are_refused_by_name():
    check_nodes(Cylinder(1, 1))
    with pytest.raises(InputError, match="Euclidean"):
        check_nodes(Euclidean(3, 1))


def test_nodes_no_finer_than_asked_for():
    """A sharper state has more nodes, up to their bound."""
    Z, state, offset = system(ATOMS["circles"], 6)
    lengths = np.linalg.norm(Z - offset, axis=1).max()
    sizes = [len(make_tables(replace(state, dispersion=sd**2), get_backend(), Fineness(), lengths)
                 .kinds[0].fine.points) for sd in (1.0, 0.2, 1e-3)]
    assert sizes[0] < sizes[1] < sizes[2] <= Fineness().curve


@pytest.mark.parametrize("atom", [Circle(2), Interval(5), Euclidean(3, 1), Sphere(1), Point()],
                         ids=repr)
def test_sweeps_and_the_engine_have_the_same_penalties_of_decoders(atom):
    own = kinds_of_atoms([atom])[0].penalties
    engine = [penalty.matrix() for penalty in decoder_penalties(atom)]
    assert own.shape == (len(engine), atom.basis_size, atom.basis_size)
    np.testing.assert_array_equal(own, np.reshape(engine, own.shape))
