"""Planted data against their own description, and the bundled data."""

import numpy as np
import pytest
from scipy.special import ndtr

from reml_sae.datasets import (
    calendar_mixed,
    gaussian_control,
    load_dates,
    load_weekdays,
    planted_circles,
    planted_manifolds,
    planted_mixed_rows,
    planted_mixture,
    superposed_manifolds,
)
from reml_sae.datasets._shapes import SHAPES
from reml_sae.datasets.superposition import _DRAW
from reml_sae.errors import InputError

AMBIENT = {"sphere": 3, "projective_plane": 3, "plane": 2, "torus": 2, "donut": 2, "cylinder": 2,
           "mobius": 2, "curved_sheet": 2}


def test_planted_noise_and_frames():
    data = planted_mixture(3000, 9, ["circle", "linear", "plane"], noise_sd=0.1, offset=1.0)
    assert (data.Z - data.signal).std() == pytest.approx(0.1, rel=0.02)
    frames = np.concatenate(data.frames)
    np.testing.assert_allclose(frames @ frames.T, np.eye(5), atol=1e-12)
    assert np.bincount(data.labels).tolist() == [1000, 1000, 1000]
    again = planted_mixture(3000, 9, ["circle", "linear", "plane"], noise_sd=0.1, offset=1.0)
    assert (again.Z == data.Z).all()


def test_planted_circle_lies_on_its_circle():
    data = planted_circles(50, 4, 1, noise_sd=0.0)
    np.testing.assert_allclose(np.linalg.norm(data.Z, axis=1), 1.0)
    assert data.explained_variance == pytest.approx(1.0)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_spans_its_frame(name):
    data = planted_manifolds(400, 7, [name, name], noise_sd=0.0, radius=2.0)
    rows = data.labels == 1
    frame, t = data.frames[1], data.coordinates[1]
    assert t.shape == (400, AMBIENT.get(name, 1))
    local = data.Z[rows] @ frame.T
    np.testing.assert_allclose(local @ frame, data.Z[rows], atol=1e-12)
    np.testing.assert_allclose(local, 2.0 * SHAPES[name].embed(t)[rows], atol=1e-12)
    assert np.linalg.matrix_rank(local - local.mean(axis=0), tol=1e-6) == len(frame)


def test_shapes_by_their_equations():
    rng = np.random.default_rng(0)
    points = {name: SHAPES[name].embed(SHAPES[name].draw(rng, 2000)) for name in SHAPES}
    for name in ("circle", "interval", "torus", "sphere", "projective_plane"):
        np.testing.assert_allclose(np.linalg.norm(points[name], axis=1), 1.0)
    x, y, z = points["donut"].T
    np.testing.assert_allclose((np.hypot(x, y) - 1.0) ** 2 + z**2, 0.4**2)
    ellipse = points["ellipse"]
    np.testing.assert_allclose(ellipse[:, 0] ** 2 + (ellipse[:, 1] / 0.6) ** 2, 1.0)
    arc = np.arctan2(points["interval"][:, 1], points["interval"][:, 0])
    assert np.abs(arc).max() < 0.75 * np.pi and np.ptp(arc) > 1.49 * np.pi
    t = rng.normal(size=(5, 1))
    arc = SHAPES["interval"].embed(t)
    np.testing.assert_allclose(np.arctan2(arc[:, 1], arc[:, 0]) / (1.5 * np.pi) + 0.5,
                               ndtr(t[:, 0]))


def test_shapes_identify_the_same_points():
    rng = np.random.default_rng(0)
    t, w = rng.uniform(-3, 3, size=20), rng.normal(size=20)
    mobius = SHAPES["mobius"].embed
    np.testing.assert_allclose(mobius(np.column_stack([t, w])),
                               mobius(np.column_stack([t + 2.0 * np.pi, -w])), atol=1e-12)
    x = SHAPES["projective_plane"].draw(rng, 20)
    veronese = SHAPES["projective_plane"].embed
    np.testing.assert_allclose(veronese(x), veronese(-x))
    # an isometry of the symmetric matrices t t': inner products are functions of (t.s)^2
    np.testing.assert_allclose(veronese(x) @ veronese(x).T, 1.5 * (x @ x.T) ** 2 - 0.5, atol=1e-12)


def test_rows_superpose_their_atoms():
    data = planted_manifolds(500, 6, ["circle", "sphere", "linear", "interval"],
                             n_active_range=(1, 3), amplitude_sd=0.5, offset=1.0, noise_sd=0.0)
    assert set(data.support.sum(axis=1)) == {1, 2, 3}
    assert ((data.amplitudes > 0.0) == data.support).all()
    assert (data.labels == data.amplitudes.argmax(axis=1)).all()
    np.testing.assert_allclose(data.weights.sum(axis=1), 1.0)
    rest = data.Z.copy()
    for k, name in enumerate(data.topologies):
        rest -= data.amplitudes[:, [k]] * (SHAPES[name].embed(data.coordinates[k])
                                           @ data.frames[k])
    # what remains are the centres, one of length 1 for each atom, linear in the amplitudes
    centres = np.linalg.lstsq(data.amplitudes, rest, rcond=None)[0]
    np.testing.assert_allclose(data.amplitudes @ centres, rest, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1.0)
    assert np.log(data.amplitudes[data.support]).std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("n_active", [1, 2, 3])
def test_imbalance_is_the_ratio_of_uses(n_active):
    data = planted_manifolds(20_000, 8, ["circle"] * 6, n_active=n_active, imbalance=2.5)
    used = data.support.sum(axis=0)
    assert (data.support.sum(axis=1) == n_active).all()
    assert used[0] / used[-1] == pytest.approx(2.5, rel=0.05)
    assert (np.diff(used) < 0).all()


def test_few_rows_are_dealt_fairly():
    data = planted_manifolds(4, 8, ["circle"] * 2, imbalance=3.0)
    assert data.support.sum(axis=0).tolist() == [3, 1]


def test_balanced_subsets_are_equally_frequent():
    data = planted_manifolds(12_000, 8, ["circle"] * 4, n_active=2)
    counts = np.unique(data.support, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and np.abs(counts - 2000).max() < 200
    assert planted_manifolds(50, 8, ["circle"] * 4, n_active=4).support.all()


def test_rows_of_a_plant():
    data = planted_manifolds(60, 8, ["circle"] * 3, n_active=2)
    held_out = data.rows(slice(40, None))
    assert len(held_out.Z) == 20 and (data.Z[40:] == held_out.Z).all()
    assert (held_out.coordinates[2] == data.coordinates[2][40:]).all()
    assert (held_out.support == data.support[40:]).all()


def test_mixed_rows_add_up():
    data = planted_mixed_rows(50, 7, noise_sd=0.0)
    np.testing.assert_allclose(data.amplitudes.sum(axis=1), 1.0)
    circles = [SHAPES["circle"].embed(t) @ f for t, f in zip(data.coordinates, data.frames,
                                                             strict=True)]
    np.testing.assert_allclose(data.Z, 2.0 * sum(data.weights[:, [k]] * circles[k]
                                                 for k in (0, 1)))


def test_gaussian_control_has_only_its_rank():
    values = np.linalg.svd(gaussian_control(4000, 10, rank=3, noise_sd=0.01), compute_uv=False)
    assert values[2] / np.sqrt(4000) > 0.1
    np.testing.assert_allclose(values[3:] / np.sqrt(4000), 0.01, rtol=0.1)


@pytest.mark.parametrize(("arguments", "options", "message"), [
    ((10, 3, ["knot"]), {}, "knot"),
    ((10, 3, []), {}, "empty"),
    ((10, 3, ["plane", "plane"]), {"orthogonal": True}, "orthogonal"),
    ((10, 3, ["projective_plane"]), {}, "n_outputs >= 5"),
    ((10, 3, ["circle"]), {"n_active": 2}, "1..1 atoms"),
    ((10, 3, ["circle"] * 3), {"n_active_range": (2, 1)}, "lowest first"),
    ((10, 3, ["circle"] * 3), {"imbalance": 0.5}, "imbalance"),
    ((10, 3, ["circle"] * 3), {"imbalance": 9.0, "n_active": 2}, "every row")])
def test_wrong_plants(arguments, options, message):
    with pytest.raises(InputError, match=message):
        planted_manifolds(*arguments, **options)


def test_wrong_rank_of_the_control():
    with pytest.raises(InputError, match="rank"):
        gaussian_control(10, 3, rank=4)


def test_calendar():
    week, year = load_weekdays(), load_dates()
    assert week.Z.shape == (140, 384) and year.Z.shape == (365, 384)
    for template in range(20):
        np.testing.assert_allclose(week.Z[week.groups == template].mean(axis=0), 0.0, atol=1e-12)
    assert "sentence encoder" in week.description
    assert repr(week).startswith("<Calendar of 140 rows, 384 columns: weekdays in")
    assert (load_weekdays(center_templates=False).Z != week.Z).any()


def test_weekdays_and_dates_together():
    both, raw = calendar_mixed(), calendar_mixed(center=False)
    week, year = load_weekdays(), load_dates()
    assert both.is_weekday.sum() == 140 and both.Z.shape == (505, 384)
    assert (both.Z[both.is_weekday] == week.Z).all()
    assert (both.phase[both.is_weekday] == week.phase).all()
    assert (both.phase[~both.is_weekday] == year.phase).all()
    assert (raw.Z[~raw.is_weekday] == year.Z).all()
    for group in range(21):
        np.testing.assert_allclose(both.Z[both.groups == group].mean(axis=0), 0.0, atol=1e-6)


def test_superposed_factors_add_up():
    data = superposed_manifolds(900, 40, 16, 3, random_state=1)
    assert data.kinds[:8] == ("segment",) * 8 and data.kinds[8] == data.kinds[15] == "circle"
    assert (data.support.sum(axis=1) == 3).all()
    assert np.ptp(data.support.sum(axis=0)) < 0.4 * data.support.sum(axis=0).mean()
    total = np.zeros_like(data.Z)
    for mine, part in zip(data.support.T, data.contributions, strict=True):
        total[mine] += part
    np.testing.assert_allclose(total, data.Z, atol=1e-12)
    widths = [np.linalg.matrix_rank(part, tol=1e-6) for part in data.contributions]
    assert widths == [1] * 8 + [2, 2] + [3] * 5 + [2]


def test_superposed_factors_of_unequal_frequency_with_amplitudes_and_noise():
    plain = superposed_manifolds(4000, 40, 8, 2, random_state=1)
    data = superposed_manifolds(4000, 40, 8, 2, decay=1.0, amplitude_sd=0.5, noise_sd=0.25,
                                random_state=1)
    assert (data.support.sum(axis=1) == 2).all()
    counts = np.sort(data.support.sum(axis=0))
    assert counts[-1] > 4 * counts[0] > 0
    noise = data.Z.copy()
    for mine, part in zip(data.support.T, data.contributions, strict=True):
        noise[mine] -= part
    assert (noise**2).sum(axis=1).mean() == pytest.approx(0.25**2, rel=0.03)
    lengths = np.log(np.linalg.norm(data.contributions[4], axis=1))  # of a circle
    assert lengths.std() == pytest.approx(0.5, rel=0.1)
    assert np.log(np.linalg.norm(plain.contributions[4], axis=1)).std() < 0.03


def test_superposed_factors_are_centred_and_of_one_size():
    for part in superposed_manifolds(20_000, 8, 14, 14).contributions:
        assert np.linalg.norm(part.mean(axis=0)) < 0.03
        assert (part**2).sum(axis=1).mean() == pytest.approx(1.0, abs=0.03)


def test_superposed_shapes_by_their_equations():
    rng = np.random.default_rng(0)
    points = {kind: draw(rng, 1000) for kind, draw in _DRAW.items()}
    x, y, z = points["torus"].T
    np.testing.assert_allclose((np.hypot(x, y) - 1.0) ** 2 + z**2, 0.4**2)
    x, y, z = points["mobius"].T
    half = np.arctan2(y, x) % (2.0 * np.pi) / 2.0
    np.testing.assert_allclose((np.hypot(x, y) - 1.0) * np.sin(half), z * np.cos(half), atol=1e-12)
    x, y, z = points["helix"].T
    np.testing.assert_allclose(np.column_stack([np.cos(4.0 * z), np.sin(4.0 * z)]),
                               np.column_stack([x, y]), atol=1e-12)
    x, y, z = points["swiss_roll"].T
    turn = np.hypot(x, y)
    np.testing.assert_allclose(turn * np.cos(turn), x, atol=1e-9)
    assert turn.min() > 1.5 * np.pi and turn.max() < 4.5 * np.pi and np.abs(z).max() <= 1.0
    assert (points["disk"] ** 2).sum(axis=1).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sizes", [(10, 5, 3, 4), (10, 5, 3, 0), (10, 2, 12, 2)])
def test_superposition_refuses(sizes):
    with pytest.raises(InputError):
        superposed_manifolds(*sizes)


@pytest.mark.parametrize("name", ["decay", "amplitude_sd", "noise_sd"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_superposition_refuses_what_is_no_size(name, value):
    with pytest.raises(InputError, match=name):
        superposed_manifolds(10, 5, 3, 2, **{name: value})
