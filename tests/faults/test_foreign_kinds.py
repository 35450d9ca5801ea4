"""What others wrote and hands in is named where it raises, has another shape or is not finite."""

import pickle
from dataclasses import dataclass, replace
from itertools import count
from typing import ClassVar

import numpy as np
import pytest

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.answers import watched
from reml_sae.datasets import planted_manifolds
from reml_sae.errors import ForeignKindError, InputError
from reml_sae.families import Poisson
from reml_sae.manifolds import Circle

Z = planted_manifolds(60, 4, ["plane"], noise_sd=0.1).Z
COUNTS = np.random.default_rng(0).poisson(np.exp(1.0 + Z))


@dataclass(frozen=True, kw_only=True, eq=False)
class Ridge(pen.RowPenalty):
    """w / 2 |t|^2, written anew."""

    latent_dim: int = 2

    KIND_TAG: ClassVar[str] = "own_ridge"

    def width(self):
        return self.latent_dim

    def row_values(self, target, rho):
        return 0.5 * self.strength(rho) * (self.rows(target) ** 2).sum(axis=1)

    def row_gradient(self, target, rho):
        return self.strength(rho) * self.rows(target)

    def row_blocks(self, target, rho):
        return np.tile(self.strength(rho) * np.eye(self.latent_dim), (len(self.rows(target)), 1, 1))

    def row_blocks_vjp(self, target, rho, weights):
        return np.zeros_like(self.rows(target))

    def log_partition(self, rho, n_rows):
        entries = n_rows * self.latent_dim
        return (0.5 * entries * np.log(2.0 * np.pi / self.strength(rho)),
                np.full(self.rho_count(), -0.5 * entries))


def raises(own, *arguments):
    raise ZeroDivisionError("their own fault")


FAULTS = {
    "raises": (raises, "raised ZeroDivisionError: their own fault"),
    "nan": (lambda own, *arguments: own(*arguments) * np.nan, "returned nan for finite arguments"),
    "far": (lambda own, t, *rest: own(t, *rest) + (np.nan if np.abs(t).max() > 2.5 else 0.0),
            "returned nan for finite arguments"),
    "shape": (lambda own, *arguments: np.ones(7), "must return shape .*, got .7,."),
    "none": (lambda own, *arguments: None, "must return numbers, got None"),
}


def spoiled(kind, method, fault):
    """A class like ``kind`` with a fault in one method."""
    own, spoil = getattr(kind, method), FAULTS[fault][0]

    def method_of(self, *arguments):
        return spoil(lambda *rest: own(self, *rest), *arguments)

    return type("Spoiled", (kind,), {method: method_of})


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("method", ["row_values", "row_gradient", "row_blocks", "row_blocks_vjp"])
def test_a_penalty_is_named(method, fault):
    penalty = spoiled(Ridge, method, fault)()
    with pytest.raises(InputError, match=rf"penalties\[1\]: own_ridge.{method} {FAULTS[fault][1]}.*"
                                         "check_penalty") as caught:
        rs.SAEManifold(n_atoms=1, topology="plane",
                       penalties=[pen.ARDPenalty(latent_dim=3), penalty]).fit(Z)
    assert isinstance(caught.value.__cause__, ZeroDivisionError) == (fault == "raises")


@pytest.mark.parametrize(("answer", "message"), [
    (None, "must return numbers, got None"),
    ((np.nan, np.zeros(1)), "returned nan"),
    ((0.0, np.zeros(3)), r"must return shape \(1,\), got \(3,\)"),
])
def test_a_normaliser_is_named(answer, message):
    kind = type("Spoiled", (Ridge,), {"log_partition": lambda self, rho, n_rows: answer})
    with pytest.raises(InputError, match=f"own_ridge.log_partition {message}"):
        rs.SAEManifold(n_atoms=1, topology="plane", penalties=[kind()]).fit(Z)


class OwnCircle(Circle):
    """A circle of another package."""


@pytest.mark.parametrize("fault", ["raises", "nan", "shape", "none"])
@pytest.mark.parametrize("method", ["prior_mean_basis", "retract", "distance", "ambient",
                                    "log_prior_volume", "gauge_field", "gauge_move"])
def test_a_topology_is_named(method, fault):
    atom = spoiled(OwnCircle, method, fault)()
    with pytest.raises(InputError, match=rf"topology\[1\]: circle.{method} .*check_manifold"):
        rs.SAEManifold(n_atoms=2, topology=["circle", atom]).fit(Z)


@pytest.mark.parametrize(("jet", "message"), [
    (lambda self, t, order: Circle.jet(self, t, order)[:2], "must return 4 arrays"),
    (lambda self, t, order: tuple(np.nan * x for x in Circle.jet(self, t, order)), "returned nan"),
    (lambda self, t, order: tuple(x[..., :1] for x in Circle.jet(self, t, order)),
     "must return shape"),
])
def test_a_basis_is_named(jet, message):
    atom = type("Spoiled", (OwnCircle,), {"jet": jet})()
    with pytest.raises(InputError, match=f"topology: circle.jet {message}"):
        rs.SAEManifold(n_atoms=1, topology=atom).fit(Z)


class OwnPoisson(Poisson):
    """Counts of another package."""


@pytest.mark.parametrize("fault", ["raises", "nan", "shape", "none"])
@pytest.mark.parametrize("method", ["initial_eta", "deviance", "loss_eta", "weight", "psi_bounds"])
def test_a_family_is_named(method, fault):
    if (method, fault) == ("psi_bounds", "nan"):
        pytest.skip("no number is none of its answers")
    family = spoiled(OwnPoisson, method, fault)()
    with pytest.raises(InputError, match=rf"family: poisson.{method} .*families.Family says"):
        rs.SAEManifold(n_atoms=1, topology="plane", family=family).fit(COUNTS[:30])


def not_a_number(found):
    return tuple(map(not_a_number, found)) if isinstance(found, tuple) else np.nan * found


LATER = {"raises": (raises, "raised ZeroDivisionError in the middle of a fit: their own fault"),
         "nan": (lambda own, *arguments: not_a_number(own(*arguments)),
                 "returned nan in the middle of a fit")}


def spoiled_later(kind, method, fault, calls):
    """A class like ``kind`` with a fault in one method from so many calls on."""
    own, number = getattr(kind, method), count()

    def method_of(self, *arguments):
        def sound(*rest):
            return own(self, *rest)
        return LATER[fault][0](sound, *arguments) if next(number) >= calls else sound(*arguments)

    return type("Spoiled", (kind,), {method: method_of})


@pytest.mark.parametrize("fault", LATER)
@pytest.mark.parametrize("calls", [20, 40])
def test_what_fails_in_the_middle_of_a_fit_is_named(fault, calls):
    """It would else be a step that the search takes back, or an error without a name."""
    cases = {
        "own_ridge.row_gradient": lambda: rs.SAEManifold(
            n_atoms=1, topology="plane",
            penalties=[spoiled_later(Ridge, "row_gradient", fault, calls)()]).fit(Z),
        "circle.prior_jet": lambda: rs.SAEManifold(
            n_atoms=2, topology=spoiled_later(OwnCircle, "prior_jet", fault, calls)()).fit(Z),
        "poisson.loss_eta": lambda: rs.SAEManifold(
            n_atoms=1, topology="plane",
            family=spoiled_later(OwnPoisson, "loss_eta", fault, calls)()).fit(COUNTS)}
    for named, fit in cases.items():
        with pytest.raises(ForeignKindError, match=f"{named} {LATER[fault][1]}"):
            fit()


def test_a_watched_object_is_what_it_was():
    atom, penalty = OwnCircle(3), Ridge(weight=2.0)
    for own in (atom, penalty):
        same = watched(own)
        assert isinstance(same, type(own))
        assert same == own
        assert own == same
        assert hash(same) == hash(own)
        assert pickle.loads(pickle.dumps(same)) == own
        assert type(pickle.loads(pickle.dumps(same))) is type(same)
    assert type(replace(watched(penalty), weight=3.0)) is type(watched(penalty))
    assert watched(atom) != Circle(3)
    assert watched(atom) != OwnCircle(2)


def test_a_callback_is_named():
    def fails(row):
        raise RuntimeError("their own fault")

    with pytest.raises(RuntimeError, match="their own fault") as caught:
        rs.SAEManifold(n_atoms=1, n_init=1, callbacks=[print, fails]).fit(Z)
    assert caught.value.__notes__ == ["raised by callbacks[1] of the fit"]


def test_what_is_right_is_fitted():
    model = rs.SAEManifold(n_atoms=1, n_init=1, topology="plane", penalties=[Ridge()]).fit(Z)
    assert model.converged_
    ring = planted_manifolds(20, 3, ["circle"], noise_sd=0.1).Z
    own, theirs = (rs.SAEManifold(n_atoms=1, n_init=1, topology=atom).fit(ring)
                   for atom in (OwnCircle(), Circle()))
    assert own.criterion_ == pytest.approx(theirs.criterion_)
    own, theirs = (rs.SAEManifold(n_atoms=1, topology="linear", family=family).fit(COUNTS[:30])
                   for family in (OwnPoisson(), Poisson()))
    assert own.criterion_ == pytest.approx(theirs.criterion_)
