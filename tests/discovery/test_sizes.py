"""V chooses the number of basis functions of an atom that was given without one."""

import warnings

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import load_weekdays
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.estimators._validation import resolve_topology
from reml_sae.manifolds import Circle, Cylinder, Euclidean, Interval, ProjectivePlane, Sphere

P, SEEDS = 8, range(2)


def curve(n_harmonics, n=120, sd=0.1, seed=0, amplitudes=None):
    """Rows about a curve with harmonics of amplitude 1 / h, or of these."""
    rng = np.random.default_rng(seed)
    h = np.arange(1, n_harmonics + 1)
    amplitudes = 1.0 / h if amplitudes is None else np.array(amplitudes)
    frame = np.linalg.qr(rng.normal(size=(P, 2 * n_harmonics)))[0].T
    t = rng.uniform(-np.pi, np.pi, n)
    waves = np.stack([np.cos(np.outer(t, h)), np.sin(np.outer(t, h))], axis=2) * amplitudes[:, None]
    return waves.reshape(n, -1) @ frame + sd * rng.normal(size=(n, P))


def fit(Z, topology="circle", **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(**{"n_atoms": 1, "n_init": 1, "noise": "isotropic", **options},
                              topology=topology).fit(Z)


def resizes(model):
    return [move for move in model.search_.moves if move.kind == "resize"]


@pytest.mark.parametrize(("planted", "seed"), [(2, 0), (2, 1), (4, 0)])
def test_the_lowest_v_is_reached(planted, seed):
    Z = curve(planted, seed=seed)
    found = fit(Z)
    values = [fit(Z, Circle(h)).criterion_ for h in range(planted - 1, planted + 2)]
    assert found.criterion_ <= min(values) + 0.1
    assert found.converged_
    assert found.atoms_[0].topology == Circle(planted)


def test_a_number_that_is_given_is_kept():
    Z = curve(4)
    for topology in (Circle(), {"topology": "circle", "n_harmonics": 2}, [Circle()]):
        model = fit(Z, topology)
        assert model.atoms_[0].topology == Circle(2) and not resizes(model)
    assert fit(Z, {"topology": "circle"}).atoms_[0].topology == Circle(4)


def test_where_the_number_does_not_matter_nothing_is_tried():
    for seed in SEEDS:
        Z = curve(1, seed=seed)
        found, given = (fit(Z, topology) for topology in ("circle", Circle(2)))
        assert not resizes(found)
        assert found.criterion_ == given.criterion_ and (found.rho_ == given.rho_).all()


def test_noise_does_not_widen_a_circle():
    for seed in (8, 11, 12):  # where V at the codes of the fit hints at a third harmonic
        assert not resizes(fit(curve(1, n=120, sd=0.4, seed=seed)))


def test_small_harmonics_that_the_rows_tell_of_are_found():
    for seed in SEEDS:
        found = fit(curve(3, n=300, seed=seed, amplitudes=(1.0, 0.0, 0.15)))
        assert found.atoms_[0].topology == Circle(3)
        assert found.converged_


def test_rows_bound_the_number():
    data = load_weekdays()  # seven groups of rows: V falls for every harmonic more
    Z = data.Z[::2] - data.Z[::2].mean(axis=0)
    u, lengths, _ = np.linalg.svd(Z, full_matrices=False)
    model = fit(u[:, :20] * lengths[:20])
    size = model.atoms_[0].topology.basis_size
    assert size <= len(Z) / SearchPolicy().move.rows_per_function < size + 2


def test_noise_with_a_covariance_does_not_take_the_curve():
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        common = 0.15 * rng.normal(size=(150, 1)) * rng.normal(size=P)
        model = fit(curve(3, n=150, seed=seed) + common, noise="factor")
        assert model.atoms_[0].topology == Circle(3)
        assert model.noise_.rank == 1


def test_atoms_have_numbers_of_their_own(tmp_path):
    # two curves in separate spaces, one of which bends
    Z = 0.1 * np.random.default_rng(0).normal(size=(160, 2 * P))
    Z[:60, :P] += curve(1, n=60, sd=0.0)
    Z[60:, P:] += curve(4, n=100, sd=0.0, seed=1)
    options = {"n_atoms": 2, "assignment": "topk", "integration": "laplace"}
    model = fit(Z, **options)
    assert sorted(atom.topology.n_harmonics for atom in model.atoms_) == [2, 4]
    assert "circle(n_harmonics=4)" in model.summary()

    model.save(tmp_path / "fit.safetensors")
    loaded = rs.load(tmp_path / "fit.safetensors")
    kinds = [atom.topology for atom in model.atoms_]
    assert [atom.topology for atom in loaded.atoms_] == kinds
    assert resizes(loaded) == resizes(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = loaded.fit(Z)
    assert [atom.topology for atom in again.atoms_] == kinds and not resizes(again)
    assert again.criterion_ <= model.criterion_ + 1.0


def test_penalties_of_one_size_hold_it():
    model = fit(curve(4), penalties=[{"kind": "harmonic_roughness", "period": 5}])
    assert model.atoms_[0].topology == Circle(2)
    assert all("not allowed" in move.detail and not move.accepted for move in resizes(model))
    assert resizes(model)


# --- what a topology says of its sizes ---------------------------------------------------------


@pytest.mark.parametrize(("atom", "wider", "narrower"), [
    (Circle(2), Circle(3), Circle(1)), (Interval(5), Interval(6), None),
    (Sphere(10), None, Sphere(9)), (ProjectivePlane(2), ProjectivePlane(4), None),
    (Cylinder(1, 2), Cylinder(2, 2), None), (Euclidean(2, 2), None, None)])
def test_neighbours(atom, wider, narrower):
    assert atom.resized(1) == wider and atom.resized(-1) == narrower


@pytest.mark.parametrize(("topology", "open_size"), [
    ("circle", True), ({"topology": "circle"}, True), ("auto", True), (Circle(), False),
    ({"topology": "circle", "n_harmonics": 2}, False),
    ({"topology": "cylinder", "degree": 2}, True), ({"topology": "duchon", "dim": 2}, True)])
def test_what_leaves_the_size_open(topology, open_size):
    assert resolve_topology(topology, 1)[1] is open_size
    if topology != "auto":
        assert resolve_topology([topology, Circle()], 2)[1] == (open_size, False)
