"""Noise of rows: metric, evidence against brute force, rank and kind."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import special_ortho_group

from reml_sae.errors import InputError
from reml_sae.families.noise import (
    NOISES,
    Diagonal,
    Factor,
    Isotropic,
    PerAtom,
    best_noise,
    charged,
    most_rank,
    nats,
    open_kinds,
    tells_factors,
)


def second_moment(covariance, n, seed):
    rows = np.random.default_rng(seed).multivariate_normal(np.zeros(len(covariance)), covariance, n)
    return rows.T @ rows / n


def factors(p, ratios, seed=0):
    frame = special_ortho_group.rvs(p, random_state=seed)[:, : len(ratios)]
    return np.eye(p) + (frame * (np.array(ratios) - 1.0)) @ frame.T


STILL = Diagonal(np.array([1.0, 0.0, -2.0, 0.5, 0.5, 0.0]), 1.0)
"""Two columns without a variance of their own."""
EXAMPLES = [Isotropic(4), Diagonal(np.array([1.0, -2.0, 0.5, 0.5]), 1.0),
            Factor(special_ortho_group.rvs(4, random_state=1)[:, :2], np.array([30.0, 2.0]),
                   np.array([33.0, 2.5]), np.array([1.4, 0.6]))]


@pytest.mark.parametrize("noise", EXAMPLES, ids=lambda noise: noise.kind)
def test_metric(noise):
    rows = np.random.default_rng(0).normal(size=(7, 4))
    np.testing.assert_allclose(noise.colour(noise.whiten(rows)), rows, rtol=1e-12)
    np.testing.assert_allclose(noise.whiten(noise.whiten(noise.shape)), np.eye(4), atol=1e-12)
    assert np.linalg.slogdet(noise.shape)[1] == pytest.approx(0.0, abs=1e-12)


def test_every_kind_has_an_example():
    assert {type(noise) for noise in EXAMPLES} == set(NOISES.items.values())


@pytest.mark.parametrize("noise", EXAMPLES, ids=lambda noise: noise.kind)
def test_arrays_are_all_that_there_is(noise):
    again = NOISES.get(noise.kind).of(noise.arrays(), len(noise.shape))
    np.testing.assert_array_equal(again.shape, noise.shape)
    assert again.cost(50) == noise.cost(50)


def test_text_of_a_noise_is_short():
    factor = Factor.of_rank(factors(300, [40.0, 9.0, 3.5]), 3)
    assert repr(factor) == "Factor(rank=3, p=300, ratios=[40, 9, 3.5])"
    assert repr(PerAtom.alike(factor, 2)) == f"PerAtom({factor!r}, groups=[0, 0])"
    wide = Diagonal.best(np.diag(np.geomspace(0.1, 10.0, 300)), 1000)
    assert repr(wide) == "Diagonal(p=300, variances=0.1 .. 9.97)"


def test_columns_that_do_not_vary():
    """They have no part in the noise, whose likelihood would have no bound."""
    n, variances = 60, np.array([0.0, 3.0, 1.0, 1e-14, 0.4])
    found = Diagonal.best(np.diag(variances), n)
    own = variances > 1e-10
    assert (found.log_variances[~own] == 0.0).all()
    assert found.log_variances.sum() == pytest.approx(0.0, abs=1e-12)
    expected = np.log(variances[own]) - np.log(variances[own]).mean()
    np.testing.assert_allclose(found.log_variances[own], expected, rtol=0.1)
    rng = np.random.default_rng(0)
    best, second = found.cost(n) + nats(found, np.diag(variances), n), np.diag(variances)
    for size in (1e-4, 1e-2) * 10:
        other = found.at(found.parameters() + size * rng.normal(size=4))
        assert (other.log_variances[~own] == 0.0).all()
        assert nats(other, second, n) + other.cost(n) >= best - 1e-9
    for equal in ([1.0, 0.0], [1.0, 1.0, 0.0]):
        assert Diagonal.best(np.diag(equal), n).spread == 0.0


@pytest.mark.parametrize("kind", ["diagonal", "factor"])
def test_nothing_near_is_better(kind):
    """The step is the minimum of what it says it minimises, also in its scale of phi."""
    n = 200
    second = second_moment(factors(5, [20.0, 3.0]) + np.diag([1.0, 2.0, 1.0, 0.3, 1.0]), n, 1)
    found = NOISES.get(kind).best(second, n)
    value = nats(found, second, n) + found.cost(n)
    rng = np.random.default_rng(2)
    for _ in range(40):
        for size in (1e-3, 0.1):
            if kind == "diagonal":
                step = size * rng.normal(size=5)
                other = Diagonal(found.log_variances + step - step.mean(),
                                 found.spread * np.exp(size * rng.normal()))
            else:
                moved = found.directions + size * rng.normal(size=found.directions.shape)
                ratios = found.ratios * np.exp(size * rng.normal(size=found.rank))
                other = replace(found, directions=np.linalg.qr(moved)[0],
                                ratios=np.maximum(ratios, 1.0 + 1e-6))
            # the prior of the ratios moves their best by 2 / n, which the step leaves out
            assert nats(other, second, n) + other.cost(n) > value - 4.0 / n


def log_density(second, n, phi, shape):
    """Of n rows with this second moment at matrices shape (m, p, p) of determinant 1: (m,)."""
    p = len(second)
    squares = np.einsum("mab,ba->m", np.linalg.inv(shape), second)
    return -0.5 * n * (p * np.log(2.0 * np.pi * phi) + squares / phi)


def averaged(values):
    return values.max() + np.log(np.mean(np.exp(values - values.max())))


def evidence(noise, second, n):
    p = len(second)
    phi = np.trace(noise.whiten(noise.whiten(second).T)) / p
    return nats(noise, second, n) + 0.5 * n * p * (1.0 + np.log(2.0 * np.pi)) + noise.cost(n), phi


@pytest.mark.parametrize(("n", "within"), [(30, 0.6), (100, 0.2), (400, 0.1)])
@pytest.mark.parametrize("ratios", [(4.0,), (30.0,), (12.0, 9.0)])
def test_evidence_of_factors(n, within, ratios):
    """Against the mean over the prior: directions uniform, 1 / e uniform."""
    r = len(ratios)
    second = second_moment(factors(3 + (r > 1), ratios), n, 3)
    # two factors that are nearly alike are neither one mode nor two
    check_evidence(second, r, n, within + 0.3 * (r - 1))


@pytest.mark.parametrize("n", [100, 400])
def test_evidence_of_a_factor_above_a_slope(n):
    """With the mean of the variances across it for all of them V would be .4 to .5 nats off."""
    frame = special_ortho_group.rvs(4, random_state=2)
    second = (frame * [3.0, 2.5, 0.4, 0.1]) @ frame.T
    check_evidence(second, 1, n, 0.1)
    noise = Factor.of_rank(second, 1)
    flat = replace(noise, across=np.ones(3))
    assert flat.cost(n) - noise.cost(n) > 0.35


def check_evidence(second, r, n, within):
    """V of the leading factors against importance sampling of the mean over the prior."""
    p = len(second)
    vectors = np.linalg.eigh(second)[1]
    noise = Factor.of_rank(second, r)
    value, phi = evidence(noise, second, n)
    rng, m = np.random.default_rng(4), 30_000 * (2 * r - 1)
    sd = 2.5 * np.sqrt(2.0 / n)
    u = np.log(noise.ratios) + sd * rng.normal(size=(m, r))
    log_weight = -u.sum(1) + (0.5 * ((u - np.log(noise.ratios)) / sd) ** 2).sum(1) + r * (
        0.5 * np.log(2.0 * np.pi) + np.log(sd))
    kept = (np.diff(u, axis=1, append=0.0) < 0.0).all(1)
    frame = np.concatenate([noise.directions, vectors[:, : p - r]], axis=1)
    U, log_q = rotated(frame, noise, n, rng, m)
    e = np.exp(u)
    shape = np.eye(p) + np.einsum("mar,mr,mbr->mab", U, e - 1.0, U)
    shape *= np.exp(-u.sum(1) / p)[:, None, None]
    log_w = np.where(kept, log_density(second, n, phi, shape) + log_weight - log_q, -np.inf)
    weights = np.exp(log_w - log_w.max())
    assert weights.sum() ** 2 / (weights**2).sum() > 300
    # the proposals are of one sign of each column, and of one order of the columns
    modes = r * np.log(2.0) + gammaln(r + 1)
    assert value == pytest.approx(-averaged(log_w) - modes, abs=within)


def rotated(frame, noise, n, rng, m):
    """Frames (m, p, r) about the mode, and their log density against the uniform one.

    Columns are drawn one after the other on the unit sphere orthogonal to those before: a Cauchy
    step t in the tangent plane gives the direction (1, t) / |(1, t)|, of density
    q(t) |(1, t)|^(d + 1) in the sphere's own area for d tangent dimensions.
    """
    p, r = noise.directions.shape
    out, log_q = np.zeros((m, p, r)), np.zeros(m)
    basis = np.repeat(frame[None], m, axis=0)
    seen = np.append(noise.ratios, noise.across[::-1])
    rates = 1.0 / np.append(noise.ratios, np.ones(p - r))
    for j in range(r):
        d = p - 1 - j
        size = n * (rates[j + 1:] - rates[j]) * (seen[j] - seen[j + 1:])
        sd = 1.0 / np.sqrt(size + 1.0)
        t = sd * rng.standard_cauchy(size=(m, d))
        direction = np.concatenate([np.ones((m, 1)), t], axis=1)
        length = np.sqrt((direction**2).sum(1))
        out[:, :, j] = np.einsum("mab,mb->ma", basis, direction / length[:, None])
        log_cauchy = -np.log(np.pi * sd * (1.0 + (t / sd) ** 2)).sum(1)
        log_area = np.log(2.0) + 0.5 * (d + 1) * np.log(np.pi) - gammaln(0.5 * (d + 1))
        log_q += log_cauchy + (d + 1) * np.log(length) + log_area
        # an orthonormal basis of what is orthogonal to the column, near the rest of the frame
        rest = basis[:, :, 1:] - out[:, :, [j]] * np.einsum(
            "ma,mab->mb", out[:, :, j], basis[:, :, 1:])[:, None, :]
        basis = np.linalg.qr(rest)[0]
        basis *= np.sign(np.einsum("mab,mab->mb", basis, rest))[:, None, :]
    return out, log_q


@pytest.mark.parametrize(("n", "within"), [(20, 0.3), (200, 0.03)])
def test_evidence_of_columns(n, within):
    """Against a grid over the log variances of three columns at the spread that was chosen."""
    second = second_moment(np.diag([8.0, 1.0, 0.4]), n, 5)
    noise = Diagonal.best(second, n)
    value, phi = evidence(noise, second, n)
    grid = np.linspace(-8.0, 8.0, 801)
    a, b = (axis.ravel() for axis in np.meshgrid(grid, grid, indexing="ij"))
    plane = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])
    d = np.column_stack([a, b]) @ plane
    likelihood = -0.5 * n * (3.0 * np.log(2.0 * np.pi * phi) + np.exp(-d) @ np.diag(second) / phi)
    prior = -0.5 * (a**2 + b**2) / noise.spread**2 - np.log(2.0 * np.pi * noise.spread**2)
    total = likelihood + prior
    truth = averaged(total) + np.log(total.size) + 2.0 * np.log(grid[1] - grid[0])
    assert value == pytest.approx(-truth, abs=within)


def test_the_kind_and_the_rank():
    """Rates over seeds: what was planted is found, and nothing where nothing was."""
    p, n, seeds = 12, 300, range(40)
    planted = {"isotropic": np.eye(p), "diagonal": np.diag(np.geomspace(0.1, 10.0, p)),
               "factor": factors(p, [40.0, 15.0, 6.0])}
    for kind, covariance in planted.items():
        found = [best_noise("auto", second_moment(covariance, n, seed), n) for seed in seeds]
        assert np.mean([noise.kind == kind for noise in found]) >= 0.95, kind
    ranks = [Factor.best(second_moment(planted["factor"], n, seed), n).rank for seed in seeds]
    assert np.mean(np.array(ranks) == 3) >= 0.9


def test_more_factors_must_win_by_a_margin():
    """The fewest whose V is the lowest to three nats: of a slope, fewer than that of the least."""
    n, fewer = 300, 0
    for seed in range(10):
        second = second_moment(np.diag(np.geomspace(3.0, 1.0, 12)), n, seed)
        values = [charged(Factor.of_rank(second, r), second, n) for r in range(11)]
        rank = Factor.best(second, n).rank
        assert values[rank] <= min(values) + 3.0
        assert all(value > min(values) + 3.0 for value in values[:rank])
        fewer += rank < int(np.argmin(values))
    assert fewer >= 5


def turns(noise, n):
    """Information about turns between two directions, one of them a factor: Minka's equation 70."""
    r, p = noise.rank, len(noise.directions)
    seen = np.append(noise.ratios, noise.across)
    rates = 1.0 / np.append(noise.ratios, np.ones(p - r))
    return [n * (rates[k] - rates[j]) * (seen[j] - seen[k])
            for j in range(r) for k in range(j + 1, p)]


def test_many_rows_leave_laplaces_evidence():
    """Where every direction is known, the integral over its sphere is that of Laplace's method.

    To what a saddlepoint approximation of second order leaves of a Gamma function of 1 / 2.
    """
    n, p = 10**6, 7
    second = second_moment(factors(p, [30.0, 12.0, 5.0]), 40, 0)
    for r in range(4):
        noise = Factor.of_rank(second, r)
        sphere = p - np.arange(r)
        half = 0.5 * np.log(np.pi) * sphere - gammaln(0.5 * sphere)
        log_information = r * np.log(0.5 * n) + np.log1p(-r / p) - r * np.log(2.0 * np.pi)
        expected = (np.log(noise.ratios).sum() + 0.5 * log_information + half.sum()
                    + 0.5 * np.log(np.array(turns(noise, n)) / (2.0 * np.pi)).sum()
                    - gammaln(r + 1))
        assert noise.cost(n) == pytest.approx(expected, abs=0.02 * r)


def minka(second, n, rank):
    """-log evidence of so many factors of isotropic noise (Minka 2000, equation 80)."""
    p, noise = len(second), Factor.of_rank(second, rank)
    sphere = p - np.arange(rank)
    directions = (rank * np.log(2.0) + 0.5 * np.log(np.pi) * sphere - gammaln(0.5 * sphere)).sum()
    free = p * rank - rank * (rank + 1) / 2 + rank
    return (nats(noise, second, n) + directions - 0.5 * free * np.log(2.0 * np.pi)
            + 0.5 * np.log(turns(noise, n)).sum() + 0.5 * rank * np.log(n))


@pytest.mark.parametrize(("n", "p", "ratios"), [
    (300, 12, (40.0, 15.0, 6.0)), (200, 40, (60.0, 40.0, 20.0, 15.0, 8.0)), (300, 20, ()),
    (60, 150, (200.0, 100.0, 50.0)), (60, 90, ()), (80, 110, tuple(np.geomspace(200, 30, 10)))])
def test_ranks_are_those_of_minkas_evidence(n, p, ratios):
    """Of more rows than columns, and of less: whatever V says of more factors than are planted."""
    right = 0
    ranks = range(min(len(ratios) + 12, most_rank(p, n)) + 1)
    for seed in range(20):
        second = second_moment(factors(p, ratios, seed), n, seed)
        reference = int(np.argmin([minka(second, n, r) for r in ranks]))
        lowest = int(np.argmin([charged(Factor.of_rank(second, r), second, n) for r in ranks]))
        right += lowest == reference == len(ratios) == Factor.best(second, n).rank
    assert right >= 19


@pytest.mark.parametrize("n", [30, 300])
def test_a_factor_less(n):
    second = second_moment(factors(12, [40.0, 15.0, 6.0]), n, 0)
    expected, found = Factor.of_rank(second, 2), Factor.of_rank(second, 3).simpler()
    for name, value in expected.arrays().items():
        np.testing.assert_allclose(found.arrays()[name], value, rtol=1e-12)
    again = replace(expected, along=np.ones(2), across=np.ones(10)).observed(second[None])
    np.testing.assert_allclose(again.along, expected.along, rtol=1e-9)
    np.testing.assert_allclose(again.across, expected.across, rtol=1e-9)


def test_a_factor_has_its_variance_where_columns_outnumber_rows():
    """By V its directions are no better known for less variance: a ninth had the lowest here."""
    n, p = 50, 400
    shares = np.geomspace(0.05, 2.0, 60)
    for seed in range(5):
        second = second_moment(factors(p, [200.0], seed), n, seed)
        noise = Factor.of_rank(second, 1)
        values = [charged(replace(noise, ratios=share * noise.ratios), second, n)
                  for share in shares]
        assert 0.85 < shares[int(np.argmin(values))] < 1.1


def test_factors_are_looked_for_where_rows_tell_them():
    """Few rows do where the spectrum ends, two to a column wherever it does."""
    n, p = 120, 150
    slope = np.diag(np.geomspace(1.0, 1e-4, p))
    for seed in range(5):
        few = second_moment(factors(p, [40.0, 15.0, 6.0], seed), n, seed)
        assert tells_factors(few, n)
        assert isinstance(best_noise(open_kinds("auto", few, n), few, n), Factor)
        steep = second_moment(slope, n, seed)
        assert not tells_factors(steep, n)
        assert not isinstance(best_noise(open_kinds("auto", steep, n), steep, n), Factor)
        assert isinstance(best_noise(open_kinds("factor", steep, n), steep, n), Factor)
        assert tells_factors(second_moment(slope, 2 * p, seed), 2 * p)
        # eight factors of 60 rows: seven rows each, but their spectrum ends in white noise
        many = second_moment(factors(100, np.geomspace(200.0, 40.0, 8), seed), 60, seed)
        assert not Factor.best(second_moment(slope, 60, seed), 60).ends_in_white_noise(60)
        assert isinstance(best_noise(open_kinds("auto", many, 60), many, 60), Factor)


def test_columns_that_do_not_vary_in_the_rows_have_no_noise():
    """What the decoders leave open of them would else shrink from turn to turn, without a bound."""
    n = 50
    rows, open_ones = np.diag([2.0, 0.0, 1.0, 0.2]), np.diag([1.0, 0.01, 0.5, 0.1])
    for kind in ("auto", "diagonal", "factor"):
        found = best_noise(open_kinds(kind, rows, n), open_ones, n)
        np.testing.assert_array_equal(found.shape[1, [0, 2, 3]], 0.0)
        assert found.shape[1, 1] == pytest.approx(1.0) or not isinstance(found, Diagonal)
    assert best_noise(open_kinds("diagonal", rows, n), open_ones, n).log_variances[1] == 0.0


def test_unknown():
    with pytest.raises(InputError, match="noise='coloured' is unknown"):
        best_noise("coloured", np.eye(3), 10)


def shapes():
    rng = np.random.default_rng(3)
    U = np.linalg.qr(rng.normal(size=(6, 3)))[0]
    d = rng.normal(size=6)
    return [Diagonal(d - d.mean(), 0.8), STILL,
            Factor(U, np.array([9.0, 4.0, 1.3]), np.array([9.5, 3.0, 1.4]),
                   np.array([1.2, 1.0, 0.8])),
            Factor(U[:, :1], np.array([30.0]), np.array([25.0]),
                   np.array([3.0, 0.8, 0.6, 0.6, 0.0])),
            Factor(U[:, :2], np.array([5.0, 4.9]), np.array([5.5, 5.1]),
                   np.array([2.5, 1.0, 0.4, 0.1])),
            Factor(U[:, :2], np.array([5.0, 4.0]), np.array([3.9, 4.4]),
                   np.array([2.5, 1.0, 0.4, 0.1]))]


@pytest.mark.parametrize("noise", shapes(), ids=lambda noise: f"{noise.kind}{noise.simpler().kind}")
def test_gradient_in_the_parameters(noise):
    rng = np.random.default_rng(5)
    Z = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))

    def value(parameters):
        made = noise.at(parameters)
        return 0.5 * np.log((made.whiten(Z) ** 4).sum()) + made.cost(50)

    x = noise.parameters()
    np.testing.assert_allclose(noise.at(x).shape, noise.shape, atol=1e-12)
    x = x + 0.2 * rng.normal(size=len(x))
    made = noise.at(x)
    white = made.whiten(Z)
    found = made.gradient(x, 2.0 * Z.T @ white**3 / (white**4).sum(), 50)
    expected = [(value(x + h) - value(x - h)) / 2e-5 for h in 1e-5 * np.eye(len(x))]
    np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("noise", shapes(), ids=lambda noise: f"{noise.kind}{noise.simpler().kind}")
def test_scaling_of_steps_is_symmetric(noise):
    steps = np.array([noise.scaled(step) for step in np.eye(len(noise.parameters()))])
    np.testing.assert_allclose(steps, steps.T, atol=1e-12)


def test_rows_know_equally_much_of_all_scaled_steps():
    """Of loadings themselves the longest are known a hundred times less along than across."""
    U = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 2)))[0]
    noise = Factor(U, np.array([400.0, 9.0]), np.array([400.0, 9.0]), np.ones(4))
    loadings = noise.parameters().reshape(6, 2)
    inverse = np.linalg.inv(np.eye(6) + loadings @ loadings.T)

    def spread(steps):
        moved = [inverse @ (step @ loadings.T + loadings @ step.T)
                 for step in steps.reshape(-1, 6, 2)]
        information = 0.5 * np.einsum("aij,bji->ab", moved, moved)
        values = np.linalg.eigvalsh(information)[1:]  # the least is of a turn among the factors
        return values[-1] / values[0]

    assert spread(np.eye(12)) > 100.0
    assert spread(np.array([noise.scaled(step) for step in np.eye(12)])) < 5.0
