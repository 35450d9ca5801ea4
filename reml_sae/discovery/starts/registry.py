"""The kinds of start, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reml_sae.discovery.codes import hard_shares
from reml_sae.discovery.starts.amid_noise import AmidNoiseStart, NoiseMixtureStart
from reml_sae.discovery.starts.dictionary import DictionaryStart
from reml_sae.discovery.starts.joint import JointStart
from reml_sae.discovery.starts.partition import PartitionStart
from reml_sae.discovery.starts.protocol import CodeStart, Start, StartProblem
from reml_sae.discovery.starts.ring import LoopStart, RingStart
from reml_sae.discovery.starts.swept import SweptStart
from reml_sae.discovery.starts.unmixing import UnmixingStart
from reml_sae.discovery.starts.wide_rings import WideRingStart

STARTS: tuple[Start, ...] = (
    RingStart(), SweptStart(), PartitionStart(), DictionaryStart(), UnmixingStart(),
    WideRingStart())
AMONG_ATOMS: tuple[Start, ...] = (JointStart(white=True),)
"""Those that carry on what rows on one atom each begin with."""
AMID_NOISE: tuple[Start, ...] = (JointStart(white=False), AmidNoiseStart(), NoiseMixtureStart())
"""Those for rows whose main axes may be those of noise."""
SEEDS: tuple[Start, ...] = (LoopStart(), PartitionStart())
"""Those of rows in a metric in which noise is nearly white, carried on amid noise."""


def find_code_starts(
    problem: StartProblem, rng: np.random.Generator, kinds: Sequence[Start] = STARTS
) -> list[CodeStart]:
    """Starts of some kinds; of all ``STARTS``, at least one.

    After one that is sure, or out of time, no more kinds are asked than these need.
    """
    found: list[CodeStart] = []
    for kind in kinds:
        if (found or kinds is not STARTS) and problem.deadline.passed:
            break
        if any(start.sure for start in found):
            break
        found += kind.propose(problem, rng)
    if problem.assignment.is_mixture:
        return [_with_shares(start, problem.policy.encode.hard_share) for start in found]
    return found


def _with_shares(start: CodeStart, share: float) -> CodeStart:
    """The same start with shares of the most used atom for amplitudes."""
    shares = hard_shares(start.labels, start.codes.support.shape[1], share)
    return replace(start, codes=replace(start.codes, amplitudes=shares))
