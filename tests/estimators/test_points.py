"""Atoms without coordinates: clusters, and rows without any structure, which need no atom."""

import warnings

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score

import reml_sae as rs
from reml_sae.datasets import planted_manifolds
from reml_sae.errors import DataWarning, InputError
from reml_sae.manifolds import Circle, Point

N, P = 120, 5


def noise(kind, rng):
    """Rows (N, P) of noise, alike in all columns or stronger in one direction or column."""
    Z = rng.normal(size=(N, P))
    if kind == "factor":
        Z += 4.0 * rng.normal(size=(N, 1)) * rng.normal(size=P)
    return Z * np.geomspace(1.0, 30.0, P) if kind == "diagonal" else Z


def clusters(seed, n_clusters=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % n_clusters
    centres = np.linalg.qr(rng.normal(size=(P, P)))[0][:n_clusters]
    return 4.0 * centres[labels] + 0.5 * rng.normal(size=(N, P)), labels


def fit(Z, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return rs.SAEManifold(**{"topology": "point", "n_init": 1, **options}).fit(Z)


@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "factor"])
def test_v_of_one_point_is_that_of_a_normal_mean(kind):
    """The rows' mean is normal under a prior as wide as the data, and is integrated out.

    As wide as they are in no metric, which may be narrower.
    """
    Z = noise(kind, np.random.default_rng(0))
    model = fit(Z, n_atoms=1, noise=kind)
    X = model.noise_.whiten(Z - Z.mean(axis=0)) / model.scale_
    phi = model.dispersion_ / model.scale_**2
    cov = phi * np.eye(N) + (Z - Z.mean(axis=0)).var() / model.scale_**2
    V = -multivariate_normal(np.zeros(N), cov).logpdf(X.T).sum() + N * P * np.log(model.scale_)
    assert model.converged_
    assert model.criterion_ == pytest.approx(V + model.noise_.cost(N), rel=1e-10)


@pytest.mark.parametrize("kind", ["isotropic", "factor"])
def test_rows_without_structure_need_no_atom(kind):
    for seed in range(2):
        Z = noise(kind, np.random.default_rng(seed))
        model = fit(Z, n_atoms="auto", topology="circle", max_atoms=1, noise="auto")
        assert [atom.topology for atom in model.atoms_] == [Point()]
        assert model.converged_
        assert model.noise_.kind == kind
        assert any(move.accepted and "no atom is left" in move.detail
                   for move in model.search_.moves)
        np.testing.assert_allclose(model.predict(Z), np.tile(Z.mean(axis=0), (N, 1)),
                                   atol=0.05 * Z.std())


def test_a_circle_is_not_removed():
    for seed in range(3):
        Z = planted_manifolds(N, P, ["circle"], noise_sd=0.3, random_state=seed).Z
        model = fit(Z, n_atoms="auto", topology="circle", max_atoms=1)
        assert [atom.topology.name for atom in model.atoms_] == ["circle"]


def test_points_are_clusters_and_v_counts_them():
    for seed, n_atoms in ((0, 3), (1, "auto")):
        Z, labels = clusters(seed)
        model = fit(Z, n_atoms=n_atoms)
        assert len(model.atoms_) == 3
        assert len(model._fitted.remembered.Z) == 0
        assert all(atom.evidence == 0.0 for atom in model.atoms_)
        for codes in (model.codes_, model.encode(Z)):
            assert adjusted_rand_score(labels, codes.assignments.argmax(axis=1)) == 1.0


def test_a_cluster_beside_a_circle(tmp_path):
    rng = np.random.default_rng(0)
    t = rng.uniform(-np.pi, np.pi, N)
    frame = np.linalg.qr(rng.normal(size=(P, 3)))[0].T
    on_circle = np.arange(N) % 3 > 0
    Z = np.where(on_circle[:, None], np.column_stack([np.cos(t), np.sin(t)]) @ frame[:2],
                 2.0 * frame[2]) + 0.1 * rng.normal(size=(N, P))
    model = fit(Z, n_atoms=2, topology=["point", "circle"])
    assert (model.codes_.assignments[:, 1] > 0.5).tolist() == on_circle.tolist()
    assert not [check for check in model.diagnostics_.checks if check.status == "fail"]
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    np.testing.assert_array_equal(again.encode(Z).assignments, model.encode(Z).assignments)
    assert "point" in again.summary()


def test_amplitudes_of_a_point_are_refused():
    with pytest.raises(InputError, match="a point has nothing that an amplitude of 'topk'"):
        fit(clusters(0)[0], n_atoms=2, topology=[Point(), Circle(1)], assignment="topk")


def test_a_point_is_drawn_among_its_rows():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    Z, _ = clusters(0)
    rs.diagnostics.plot_atoms(fit(Z, n_atoms=3), Z, figure=figure)
    for axis in figure.axes[:3]:
        assert (np.ptp(axis.collections[0].get_offsets(), axis=0) > 0.5).all()
