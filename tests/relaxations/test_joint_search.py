"""Curves told from noise that is longer than they are."""

import numpy as np
import pytest

from reml_sae.manifolds import Circle, Sphere
from reml_sae.relaxations import curves_amid_noise as amid
from reml_sae.relaxations.curves_amid_noise import AtomCodes, curves_amid_noise
from reml_sae.relaxations.policy import CurvesPolicy


def rows(n_circles, seed, n=150, p=8, sd=0.1):
    """Circles of radius one, one a row, amid two factors of sd 3 and 2; angles, atoms and noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_circles), n)
    t = rng.uniform(-np.pi, np.pi, len(labels))
    frames = np.linalg.qr(rng.normal(size=(p, p)))[0].reshape(p, -1, 2)
    Z = np.einsum("nd,pnd->np", np.column_stack([np.cos(t), np.sin(t)]), frames[:, labels])
    noise = np.linalg.qr(rng.normal(size=(p, 2)))[0] * [3.0, 2.0]
    Z += rng.normal(size=(len(Z), 2)) @ noise.T + sd * rng.normal(size=Z.shape)
    return Z - Z.mean(axis=0), t, labels, noise @ noise.T + sd**2 * np.eye(p)


def astray(t, other):
    """Median distance of angles, whichever way round and wherever they begin."""
    return min(float(np.median(np.abs(np.angle(turn / np.mean(turn)))))
               for sign in (1.0, -1.0) for turn in [np.exp(1j * (t - sign * other))])


def test_a_ring_below_the_noise_is_found():
    for seed in range(6):
        Z, t, _, noise = rows(1, seed)
        found = curves_amid_noise(Z, [Circle()], [], np.random.default_rng(seed), CurvesPolicy())
        assert found.agreed
        assert astray(t, found.codes[0].coordinates[:, 0]) < 0.3
        left = found.noises[0] / np.trace(found.noises[0]) * np.trace(noise)
        assert np.linalg.norm(left - noise) < 0.25 * np.linalg.norm(noise)


def test_rows_of_two_rings_are_told_apart():
    for seed in range(4):
        Z, t, labels, _ = rows(2, seed)
        found = curves_amid_noise(Z, [Circle()] * 2, [], np.random.default_rng(seed),
                                  CurvesPolicy())
        assert found.agreed
        codes = found.codes[0]
        same = codes.labels == labels
        assert max(same.mean(), 1.0 - same.mean()) > 0.94
        for k in range(2):
            mine = labels == k
            atom = np.bincount(codes.labels[mine]).argmax()
            assert astray(t[mine], codes.coordinates[mine, atom]) < 0.3


def test_evidence_never_falls():
    """Every sweep of EM lowers the negative log evidence, but for what Fellner-Schall moves."""
    Z = rows(1, 0)[0]
    joint = amid._Atoms.of([Circle(1)], CurvesPolicy())
    for seed in range(3):
        start = joint.random_codes(amid._white(Z), np.random.default_rng(seed))
        place = amid._begin(Z, joint, start)
        values = []
        for _ in range(30):
            place = amid._step(Z, joint, place)
            values.append(place.value)
        assert np.diff(values).max() < 0.5


def test_seeds_are_tried_and_the_best_are_kept():
    Z, t, labels, _ = rows(1, 1)
    rng, policy = np.random.default_rng(0), CurvesPolicy(most_random=0, agree=2)
    wrong = AtomCodes(labels, rng.uniform(-np.pi, np.pi, (len(Z), 1)))
    right = AtomCodes(labels, t[:, None])
    found = curves_amid_noise(Z, [Circle()], [wrong, right], rng, policy)
    assert not found.agreed
    assert astray(t, found.codes[0].coordinates[:, 0]) < 0.3
    again = curves_amid_noise(Z, [Circle()], [right, right], rng, policy)
    assert again.agreed and len(again.codes) == 1


@pytest.mark.parametrize("Z", [np.random.default_rng(0).normal(size=(15, 4)), np.zeros((50, 4))])
def test_too_few_or_equal_rows_give_none(Z):
    found = curves_amid_noise(Z, [Sphere()], [], np.random.default_rng(0), CurvesPolicy())
    assert not found.codes and not found.agreed
