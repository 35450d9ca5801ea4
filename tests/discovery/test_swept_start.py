"""Starts of many rings by sweeps: alone where two seeds agree, beside others where not."""

import numpy as np

from reml_sae.assignments import get_assignment
from reml_sae.datasets import planted_circles
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.discovery.starts.protocol import StartProblem
from reml_sae.discovery.starts.registry import find_code_starts
from reml_sae.discovery.starts.swept import SweptStart
from reml_sae.manifolds import Circle
from reml_sae.relaxations.pieces import same_partition


def problem(Z, K, assignment="topk"):
    Z = Z - Z.mean(axis=0)
    chosen = (get_assignment("topk", K, n_active=1) if assignment == "topk"
              else get_assignment(assignment, K))
    return StartProblem(Z / np.sqrt((Z**2).mean()), [Circle(1)] * K, chosen, 4, SearchPolicy())


def test_one_start_where_seeds_agree():
    for seed in range(3):
        plant = planted_circles(420, 12, 6, n_active=1, noise_sd=0.1, random_state=seed)
        found = find_code_starts(problem(plant.Z, 6), np.random.default_rng(seed))
        assert len(found) == 1 and found[0].sure
        assert same_partition(found[0].labels, plant.labels, 6)
        assert 0.95 < found[0].explained / plant.explained_variance < 1.05


def test_other_starts_where_they_do_not():
    Z = np.random.default_rng(0).normal(size=(120, 8))
    found = find_code_starts(problem(Z, 6), np.random.default_rng(0))
    assert len(found) > 2 and not any(start.sure for start in found)


def test_none_of_few_rings_or_mixed_rows():
    plant = planted_circles(200, 8, 3, n_active=1, noise_sd=0.1, random_state=0)
    for case in (problem(plant.Z, 3), problem(plant.Z, 6, "softmax")):
        assert SweptStart().propose(case, np.random.default_rng(0)) == []
