"""What an atom's curve is worth over its centre and over a flat, in nats a row."""

import numpy as np
import pytest

import reml_sae as rs
from reml_sae.datasets import gaussian_control, planted_circles, planted_manifolds
from reml_sae.discovery import over_flat as module
from reml_sae.manifolds import Circle

pytestmark = pytest.mark.filterwarnings("ignore::reml_sae.errors.DataWarning")


def fitted(Z, **given):
    return rs.SAEManifold(**{"n_atoms": 1, "n_init": 1, "noise": "isotropic", **given}).fit(Z)


@pytest.mark.parametrize("sd", [0.1, 0.3])
def test_of_a_sole_atom_it_is_the_difference_of_two_fits(sd):
    for seed in range(2):
        Z = planted_circles(120, 4, 1, noise_sd=sd, random_state=seed).Z
        curved, flat = (fitted(Z, topology=name) for name in ("circle", "plane"))
        rise = flat.criterion_ - curved.criterion_
        assert curved.converged_ and flat.converged_ and rise > 10.0
        assert curved.atoms_[0].over_flat * len(Z) == pytest.approx(rise, abs=0.5 + 0.01 * rise)
        assert flat.atoms_[0].over_flat is None


def test_a_curve_in_gaussian_rows_is_worth_nothing():
    """As the check of the atom says, of a flat in the whole model."""
    for seed in range(2):
        model = fitted(gaussian_control(60, 4, rank=2, noise_sd=0.1, random_state=seed))
        (twin,) = model.search_.flat_twins
        margin = model.search_.policy.move.margin
        assert model.atoms_[0].over_flat * 60 < margin
        assert model.atoms_[0].over_flat * 60 == pytest.approx(twin.after - twin.before, abs=margin)


def test_of_several_atoms_each_has_its_own(tmp_path):
    Z = planted_manifolds(60, 5, ["circle", "linear"], noise_sd=0.1).Z
    model = fitted(Z, n_atoms=2, topology=[Circle(1), "linear"], assignment="topk")
    counts = model.codes_.counts(model.assignment_)
    for atom, count in zip(model.atoms_, counts, strict=True):
        assert atom.evidence_per_row == pytest.approx(atom.evidence / count)
    curved, flat = model.atoms_
    assert flat.over_flat is None and 0.3 < curved.over_flat < curved.evidence_per_row
    lines = model.summary().splitlines()
    table = lines[lines.index("Atoms:") + 2:][:2]
    assert [row.split()[-1] for row in table] == [f"{curved.over_flat:.3f}", "-"]
    model.save(tmp_path / "fit.safetensors")
    again = rs.load(tmp_path / "fit.safetensors")
    assert ([(a.evidence_per_row, a.over_flat) for a in again.atoms_]
            == [(a.evidence_per_row, a.over_flat) for a in model.atoms_])


def test_an_end_that_the_user_asked_for_leaves_it_unknown(monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_rise", stop)
    model = fitted(planted_circles(60, 4, 1, noise_sd=0.1).Z)
    assert model.converged_ and np.isnan(model.atoms_[0].over_flat)
    assert model.summary().splitlines()[4].rstrip().endswith("over flat")
    assert model.summary().splitlines()[5].endswith(" -")
