"""Codes of rows on one atom each: amid noise that is longer than the atoms, and in white noise."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from reml_sae.datasets import planted_circles
from reml_sae.manifolds import Circle, Sphere
from reml_sae.relaxations import joint_search
from reml_sae.relaxations.joint_mixture import AtomCodes, JointGrid, JointMixture
from reml_sae.relaxations.joint_moves import propose, random_codes, spread_out
from reml_sae.relaxations.joint_search import Tries, search_codes
from reml_sae.relaxations.policy import JointPolicy


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
        found = search_codes(Z, [Circle()], [], False, np.random.default_rng(seed), JointPolicy())
        assert found.agreed
        assert astray(t, found.codes[0].coordinates[:, 0]) < 0.3
        left = found.noises[0] / np.trace(found.noises[0]) * np.trace(noise)
        assert np.linalg.norm(left - noise) < 0.25 * np.linalg.norm(noise)


def test_rows_of_two_rings_are_told_apart():
    for seed in range(4):
        Z, t, labels, _ = rows(2, seed)
        found = search_codes(Z, [Circle()] * 2, [], False, np.random.default_rng(seed),
                             JointPolicy())
        assert found.agreed
        codes = found.codes[0]
        same = codes.labels == labels
        assert max(same.mean(), 1.0 - same.mean()) > 0.94
        for k in range(2):
            mine = labels == k
            atom = np.bincount(codes.labels[mine]).argmax()
            assert astray(t[mine], codes.coordinates[mine, atom]) < 0.3


@pytest.mark.parametrize("white", [True, False])
def test_evidence_never_falls(white):
    """Every sweep of EM lowers the negative log evidence, but for what Fellner-Schall moves."""
    Z = rows(1, 0)[0]
    joint = JointGrid.of([Circle(1)], JointPolicy())
    mixture = JointMixture(Z, joint, white, JointPolicy())
    for seed in range(3):
        place = mixture.begin(random_codes(joint, spread_out(Z), np.random.default_rng(seed)))
        values = []
        for _ in range(30):
            place = mixture.step(place)
            values.append(place.value)
        assert np.diff(values).max() < 0.5


def test_seeds_are_tried_and_the_best_are_kept():
    Z, t, labels, _ = rows(1, 1)
    rng = np.random.default_rng(0)
    policy = JointPolicy(most_random=0, agree=2, patience=0, most_chains=2)
    wrong = AtomCodes(labels, rng.uniform(-np.pi, np.pi, (len(Z), 1)))
    right = AtomCodes(labels, t[:, None])
    found = search_codes(Z, [Circle()], [wrong, right], False, rng, policy)
    assert not found.agreed and found.tries == Tries(made=2, reached=1)
    assert astray(t, found.codes[0].coordinates[:, 0]) < 0.3
    again = search_codes(Z, [Circle()], [right, right], False, rng, policy)
    assert again.tries == Tries(made=2, reached=2) and len(again.codes) == 1


def test_tries_from_seeds_that_are_alike_do_not_agree():
    Z, t, labels, _ = rows(1, 1)
    policy = JointPolicy(most_random=0, agree=3, patience=0, most_chains=2)
    right = AtomCodes(labels, t[:, None])
    found = search_codes(Z, [Circle()], [right, right], False, np.random.default_rng(3), policy)
    assert found.tries == Tries(made=2, reached=1)


@pytest.mark.parametrize("Z", [np.random.default_rng(0).normal(size=(15, 4)), np.zeros((50, 4))])
def test_too_few_or_equal_rows_give_none(Z):
    found = search_codes(Z, [Sphere()], [], False, np.random.default_rng(0), JointPolicy())
    assert not found.codes and not found.agreed


def two_rings(seed):
    """Circles in planes of their own, in white noise; their codes."""
    plant = planted_circles(120, 5, 2, noise_sd=0.1, random_state=seed)
    return plant.Z - plant.Z.mean(axis=0), AtomCodes(
        plant.labels, np.concatenate(plant.coordinates, axis=1))


def test_random_seeds_go_on_where_two_have_come_to_the_best():
    for seed in range(3):
        Z, right = two_rings(seed)
        few, more = (search_codes(Z, [Circle(1)] * 2, [right, right], True,
                                  np.random.default_rng(seed),
                                  JointPolicy(few_random=0, more_random=count, most_chains=1))
                     for count in (0, 40))
        assert few.tries.made == 1  # a chain of moves
        assert more.tries.reached == JointPolicy().agree


def test_a_chain_ends_where_moves_have_come_back_to_another(monkeypatch):
    made = []
    monkeypatch.setattr(joint_search, "propose",
                        lambda at, rng: (made.append(at.place.value), propose(at, rng))[1])
    for seed in range(3):
        Z, right = two_rings(seed)
        wrong = AtomCodes(1 - right.labels[::-1], right.coordinates)
        counts = []
        for chains in (1, 2):
            made.clear()
            found = search_codes(Z, [Circle(1)] * 2, [right, wrong], True,
                                 np.random.default_rng(seed),
                                 JointPolicy(few_random=0, more_random=0, most_chains=chains))
            counts.append(len([value for value in made if value < min(made) + 3.0]))
        assert found.tries == Tries(made=2, reached=2)
        assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("white", [True, False])
def test_noise_alone_is_the_likelihood_of_a_mean_and_the_noise(white):
    """But for the price of the mean, and of the prior of a covariance."""
    Z = rows(1, 0, n=400)[0]
    mixture = JointMixture(Z, JointGrid.of([Circle(1)], JointPolicy()), white, JointPolicy())
    second = Z.T @ Z / len(Z)
    if white:
        second = np.trace(second) / len(second) * np.eye(len(second))
    likelihood = -multivariate_normal(np.zeros(len(second)), second).logpdf(Z).sum()
    price = mixture.noise_alone - likelihood
    assert 0.0 < price < 0.5 * len(second) * (len(second) + 1) * np.log(len(Z))


def test_no_moves_are_made_where_noise_alone_is_better(monkeypatch):
    def never(*given):
        raise AssertionError

    monkeypatch.setattr(joint_search, "_move_on", never)
    plain = np.random.default_rng(0).normal(size=(200, 8))
    found = search_codes(plain, [Circle(1)] * 3, [], True, np.random.default_rng(0), JointPolicy())
    assert found.codes and found.tries.made > 1


def test_wider_bases_are_searched_only_where_they_are_used(monkeypatch):
    """Circles, and a closed curve of four harmonics that is none."""
    rng = np.random.default_rng(0)
    labels, t = np.arange(240) % 2, rng.uniform(-np.pi, np.pi, 240)
    frame = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    circles = np.column_stack([np.cos(t), np.sin(t)])
    bent = np.column_stack([circles, 0.5 * np.cos(4 * t), 0.5 * np.sin(4 * t)])
    noise = 0.1 * rng.normal(size=(240, 8))
    plain = np.where(labels[:, None] == 0, circles @ frame[:2], circles @ frame[4:6]) + noise
    rough = np.where(labels[:, None] == 0, bent @ frame[:4], circles @ frame[4:6]) + noise
    sizes, ends = [], joint_search._ends

    def spied(mixture, *given):
        sizes.append(mixture.joint.atoms[0].basis_size)
        return ends(mixture, *given)

    monkeypatch.setattr(joint_search, "_ends", spied)
    for Z, asked in ((plain, [3]), (rough, [3, 13])):
        sizes.clear()
        found = search_codes(Z - Z.mean(axis=0), [Circle(1)] * 2, [], True,
                             np.random.default_rng(0), JointPolicy(), wider=[Circle(6)] * 2)
        same = (found.codes[0].labels == labels).mean()
        assert sizes == asked and max(same, 1.0 - same) > 0.95
