"""What a search says of itself: how often it was tried, and how often it came to its answer."""

from dataclasses import replace

import pytest

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.record import SearchRecord
from reml_sae.discovery.starts import joint
from reml_sae.errors import InputError
from reml_sae.relaxations.joint_search import Tries, search_codes

Z = planted_circles(60, 4, 2, noise_sd=0.1, random_state=0).Z


@pytest.mark.parametrize(("tries", "statuses"), [
    (None, []), (Tries(1, 1), []), (Tries(5, 1), ["warn"]), (Tries(5, 2), ["pass"])])
def test_a_best_answer_of_one_try_among_several_is_warned_of(tries, statuses):
    record = SearchRecord(tries=tries)
    assert [check.status for check in record.checks()] == statuses
    assert SearchRecord.from_dict(record.to_dict()) == record


def test_a_fit_keeps_and_shows_what_its_search_tells(monkeypatch):
    monkeypatch.setattr(joint, "search_codes",
                        lambda *args: replace(search_codes(*args), tries=Tries(4, 1)))
    model = rs.SAEManifold(n_atoms=2, n_init=1, assignment="topk").fit(Z)
    assert model.search_.tries == Tries(4, 1)
    check = next(item for item in model.diagnostics_.checks if item.name == "search among atoms")
    assert check.status == "warn" and check.figure == 0.25
    assert "1 of 4 tries" in model.summary() and "Raise n_init" in model.summary()


@pytest.fixture
def asked(monkeypatch):
    """Chains at most of every search among atoms."""
    chains = []

    def search(*args):
        chains.append(args[5].most_chains)
        return search_codes(*args)

    monkeypatch.setattr(joint, "search_codes", search)
    return chains


def test_n_init_asks_for_as_many_tries(asked):
    rs.SAEManifold(n_atoms=2, n_init=11, assignment="topk").fit(Z)
    assert asked[0] == 11


def test_births_have_few_tries(asked):
    rs.SAEManifold(n_atoms="auto", max_atoms=2, assignment="topk", noise="isotropic").fit(Z)
    assert set(asked) == {SearchPolicy().move.birth_chains}


@pytest.mark.parametrize("tries", [{"made": 1, "reached": 2}, {"made": -1, "reached": -2}])
def test_tries_that_cannot_be_are_refused(tries):
    with pytest.raises(InputError, match="tries"):
        SearchRecord.from_dict(SearchRecord().to_dict() | {"tries": tries})
