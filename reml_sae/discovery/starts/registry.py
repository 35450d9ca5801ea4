"""The kinds of start, in the order in which they are tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from reml_sae.discovery.codes import hard_shares
from reml_sae.discovery.starts.amid_noise import AmidNoiseStart
from reml_sae.discovery.starts.dictionary import DictionaryStart
from reml_sae.discovery.starts.loop import LoopStart
from reml_sae.discovery.starts.partition import PartitionStart
from reml_sae.discovery.starts.protocol import CodeStart, Start, StartProblem
from reml_sae.discovery.starts.unmixing import UnmixingStart
from reml_sae.discovery.starts.wide_rings import WideRingStart

STARTS: tuple[Start, ...] = (
    PartitionStart(), LoopStart(), DictionaryStart(), UnmixingStart(), WideRingStart(),
    AmidNoiseStart())


def find_code_starts(problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
    """At least one start."""
    found = [start for kind in STARTS for start in kind.propose(problem, rng)]
    if problem.assignment.is_mixture:
        return [_with_shares(start, problem.policy.encode.hard_share) for start in found]
    return found


def _with_shares(start: CodeStart, share: float) -> CodeStart:
    """The same start with shares of the most used atom for amplitudes."""
    shares = hard_shares(start.labels, start.codes.support.shape[1], share)
    return replace(start, codes=replace(start.codes, amplitudes=shares))
