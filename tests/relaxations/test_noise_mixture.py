"""Rows on one flat each amid noise that is stronger than these."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae.datasets import calendar_mixed
from reml_sae.relaxations.axes import principal_scores
from reml_sae.relaxations.noise_mixture import flats_amid_noise
from reml_sae.relaxations.policy import NoiseMixturePolicy


def planted(K, p, offset, seed, n=40):
    """Flats of two dimensions with sd 1, amid noise of sd .1, but of 5 along two directions."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(K), n)
    frames = np.linalg.qr(rng.normal(size=(K, p, 2)))[0]
    centres = offset * rng.normal(size=(K, p))
    Z = np.einsum("nd,npd->np", rng.normal(size=(K * n, 2)), frames[labels]) + centres[labels]
    strong = np.linalg.qr(rng.normal(size=(p, 2)))[0]
    Z += 0.1 * rng.normal(size=Z.shape) + 5.0 * rng.normal(size=(K * n, 2)) @ strong.T
    return Z - Z.mean(axis=0), labels


def accuracy(support, labels):
    K = support.shape[1]
    table = np.zeros((K, K))
    np.add.at(table, (support.argmax(axis=1), labels), 1.0)
    return table[linear_sum_assignment(-table)].sum() / len(labels)


def test_rows_are_told_apart():
    for seed in range(2):
        Z, labels = planted(3, 10, 0.5, seed)
        start, = flats_amid_noise(Z, [2] * 3, 1, np.random.default_rng(seed), NoiseMixturePolicy())
        assert (start.support.sum(axis=1) == 1).all()
        assert accuracy(start.support, labels) > 0.95


def test_weekdays_and_dates_are_told_apart():
    """Real rows of one centre, where no direction tells the two, nor do flats of two dimensions."""
    data = calendar_mixed()
    Z = principal_scores(data.Z - data.Z.mean(axis=0), 40)
    likeliest, = flats_amid_noise(Z, [2, 2], 1, np.random.default_rng(0), NoiseMixturePolicy())
    assert accuracy(likeliest.support, (~data.is_weekday).astype(int)) > 0.98
    assert [scores.shape[1] for scores in likeliest.scores] == [2, 2]


def test_too_few_rows_give_none():
    Z = np.random.default_rng(0).normal(size=(15, 4))
    assert flats_amid_noise(Z, [2, 2], 1, np.random.default_rng(0), NoiseMixturePolicy()) == []
