"""What others wrote and hands in is named where it raises, has another shape or is not finite."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import reml_sae as rs
from reml_sae import penalties as pen
from reml_sae.datasets import planted_manifolds
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle

Z = planted_manifolds(60, 4, ["plane"], noise_sd=0.1).Z


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


def test_a_callback_is_named():
    def fails(row):
        raise RuntimeError("their own fault")

    with pytest.raises(RuntimeError, match="their own fault") as caught:
        rs.SAEManifold(n_atoms=1, n_init=1, callbacks=[print, fails]).fit(Z)
    assert caught.value.__notes__ == ["raised by callbacks[1] of the fit"]


def test_what_is_right_is_fitted():
    model = rs.SAEManifold(n_atoms=1, n_init=1, topology="plane", penalties=[Ridge()]).fit(Z)
    assert model.converged_
    own = rs.SAEManifold(n_atoms=1, n_init=1, topology=OwnCircle()).fit(Z)
    theirs = rs.SAEManifold(n_atoms=1, n_init=1, topology=Circle()).fit(Z)
    assert own.criterion_ == pytest.approx(theirs.criterion_)
