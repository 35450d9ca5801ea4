"""The gauge: fields, moves, generators and volume belong to one group."""

import numpy as np
import pytest
from scipy.linalg import expm

from reml_sae.manifolds import Circle, Cylinder, Euclidean, Mobius, ProjectivePlane, Sphere, Torus
from tests.manifolds.cases import draws, every

LENGTHS = {Circle(2): 2 * np.pi, Euclidean(2, 2): 2 * np.pi, Sphere(2): 2 * np.pi,
           ProjectivePlane(2): 2 * np.pi, Torus(1): 2 * np.pi, Cylinder(1, 1): 2 * np.pi,
           Mobius(1): 4 * np.pi}


@every
def test_shapes(manifold):
    t = draws(manifold, 5)
    generators, fields = manifold.gauge_generators(), manifold.gauge_field(t)
    assert generators.shape[1:] == (manifold.basis_size,) * 2
    assert fields.shape == (len(generators), *t.shape)
    moved = manifold.gauge_move(t, np.zeros(len(generators)))
    np.testing.assert_allclose(manifold.distance(moved, t), 0.0, atol=1e-12)


@every
def test_the_decoder_undoes_the_field(manifold):
    t = draws(manifold, 6)
    for generator, field in zip(manifold.gauge_generators(), manifold.gauge_field(t), strict=True):
        along = np.einsum("nd,ndm->nm", field, manifold.jet(t, 1)[1])
        np.testing.assert_allclose(along, -manifold.basis(t) @ generator, atol=1e-10)


@every
def test_the_decoder_undoes_a_finite_move(manifold):
    rng = np.random.default_rng(1)
    t = draws(manifold, 30)
    generators = manifold.gauge_generators()
    for size in (0.1, 1.0, 5.0):
        c = size * rng.normal(size=len(generators))
        moved = manifold.basis(manifold.gauge_move(t, c)) @ expm(np.tensordot(c, generators, 1))
        np.testing.assert_allclose(moved, manifold.basis(t), atol=1e-9)


@every
def test_the_move_follows_the_field(manifold):
    t = 0.9 * draws(manifold, 5)
    fields, eps = manifold.gauge_field(t), 1e-6
    for direction, field in zip(np.eye(len(fields)), fields, strict=True):
        slope = (manifold.gauge_move(t, eps * direction)
                 - manifold.gauge_move(t, -eps * direction)) / (2 * eps)
        np.testing.assert_allclose(slope, field, atol=1e-8)


@every
def test_the_gauge_leaves_priors_and_distances(manifold):
    t1, t2 = draws(manifold, 20), draws(manifold, 20, seed=1)
    generators = manifold.gauge_generators()
    np.testing.assert_allclose(generators, -generators.swapaxes(1, 2), atol=1e-12)
    c = np.random.default_rng(2).normal(size=len(generators))
    moved1, moved2 = manifold.gauge_move(t1, c), manifold.gauge_move(t2, c)
    np.testing.assert_allclose(manifold.prior_jet(moved1, 0)[0], manifold.prior_jet(t1, 0)[0],
                               atol=1e-12)
    np.testing.assert_allclose(manifold.distance(moved1, moved2), manifold.distance(t1, t2),
                               atol=1e-10)


@pytest.mark.parametrize(("manifold", "length"), LENGTHS.items(), ids=str)
def test_volume_of_one_rotation_is_where_it_closes(manifold, length):
    t = draws(manifold, 20)
    for number, generator in enumerate(manifold.gauge_generators()):
        assert manifold.log_gauge_volume([number]) == pytest.approx(np.log(length))
        for share in (0.25, 1 / 3, 0.5, 1.0):
            c = share * length * np.eye(len(manifold.gauge_generators()))[number]
            gap = (np.abs(expm(share * length * generator) - np.eye(len(generator))).max()
                   + manifold.distance(manifold.gauge_move(t, c), t).max())
            assert (gap < 1e-9) == (share == 1.0)


@every
def test_no_symmetry_has_volume_one(manifold):
    assert manifold.log_gauge_volume([]) == 0.0


def test_volume_of_several():
    assert Torus(1).log_gauge_volume([0, 1]) == pytest.approx(2 * np.log(2 * np.pi))
    for manifold in (Sphere(2), ProjectivePlane(2), Euclidean(3, 1)):
        assert manifold.log_gauge_volume([0, 1, 2]) == pytest.approx(np.log(8 * np.pi**2))


def test_sphere_rotates_about_its_axes():
    t = np.eye(3)
    np.testing.assert_allclose(Sphere(1).gauge_move(t, np.array([0, 0, np.pi / 2])),
                               [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-15)
