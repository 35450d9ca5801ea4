"""A fit that goes on from the present one."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.discovery import search as search_module
from reml_sae.errors import ConvergenceWarning, InputError

DATA = planted_circles(80, 6, 2, noise_sd=0.1, random_state=3)
OPTIONS = {"n_atoms": 2, "topology": rs.manifolds.Circle(1), "n_init": 1, "warm_start": True,
           "noise": "isotropic"}


@cache
def fitted():
    return rs.SAEManifold(**OPTIONS).fit(DATA.Z)


@cache
def ended_early():
    with pytest.warns(ConvergenceWarning):
        return rs.SAEManifold(**OPTIONS, max_outer=2).fit(DATA.Z)


@pytest.fixture
def no_starts(monkeypatch):
    """Fails where starts are looked for."""
    return lambda: monkeypatch.setattr(
        search_module, "fit_starts", lambda *_: pytest.fail("starts were looked for"))


@pytest.mark.parametrize("more", [{"noise": "diagonal"}, {"assignment": "topk"}])
def test_it_stays_where_it_has_converged(more, no_starts):
    model = rs.SAEManifold(**{**OPTIONS, **more}).fit(DATA.Z)
    before, codes = model.criterion_, model.codes_
    no_starts()
    model.fit(DATA.Z)
    assert model.converged_ and model.criterion_ == pytest.approx(before, abs=1e-4)
    np.testing.assert_allclose(model.codes_.assignments, codes.assignments, atol=1e-3)


def test_what_was_open_stays_as_it_was_found(no_starts):
    Z = planted_circles(60, 4, 1, noise_sd=0.1).Z
    model = rs.SAEManifold(n_atoms="auto", max_atoms=2, noise="isotropic", n_init=1,
                           warm_start=True).fit(Z)
    before = model.criterion_
    no_starts()
    assert len(model.set_params(topology="auto").fit(Z).atoms_) == 1
    assert model.criterion_ == pytest.approx(before, abs=1e-3)


def test_a_fit_that_ended_early_goes_on():
    model = deepcopy(ended_early()).set_params(max_outer=200).fit(DATA.Z)
    assert model.converged_ and model.criterion_ == pytest.approx(fitted().criterion_, abs=1e-3)


def test_other_rows_are_encoded_first(no_starts):
    half = rs.SAEManifold(**OPTIONS).fit(DATA.Z[:50])
    cold = fitted()
    no_starts()
    half.fit(DATA.Z)
    assert len(half.codes_) == 80
    assert half.criterion_ == pytest.approx(cold.criterion_, abs=1e-2)


def test_a_file_goes_on_too(no_starts, tmp_path):
    model = fitted()
    model.save(tmp_path / "fit.safetensors")
    no_starts()
    again = rs.load(tmp_path / "fit.safetensors")
    assert again.warm_start
    assert again.fit(DATA.Z).criterion_ == pytest.approx(model.criterion_, abs=1e-4)


def test_a_checkpoint_is_of_one_start(tmp_path):
    model = rs.SAEManifold(**OPTIONS, checkpoint=tmp_path / "search").fit(DATA.Z)
    with pytest.raises(InputError, match="differs in the start"):
        model.fit(DATA.Z)


@pytest.mark.parametrize(("change", "message"), [
    ({"n_atoms": 3}, "has 2 atoms, and n_atoms=3"),
    ({"topology": "sphere"}, "atom 0 of the present fit is a circle.*sphere"),
    ({"topology": rs.manifolds.Circle(7)}, r"n_harmonics=7\) is asked for"),
    ({"assignment": "topk"}, "has assignment"),
    ({"family": "student_t"}, "has family"),
    ({"warm_start": 1}, "warm_start must be True or False")])
def test_what_cannot_be_taken_over_is_refused(change, message):
    model = deepcopy(ended_early())
    with pytest.raises(InputError, match=message):
        model.set_params(**change).fit(DATA.Z)
    with pytest.raises(InputError, match="has columns 6, and 5 is asked for"):
        model.set_params(**{**OPTIONS, "assignment": "softmax",
                            "family": "gaussian"}).fit(DATA.Z[:, :5])
