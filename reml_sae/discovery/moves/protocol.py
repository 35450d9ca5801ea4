"""What a move is: a source of changed models, each with the margin by which V must accept it.

To add one, write a class with `applies` and `propose` and name it in `registry.MOVES`. A move does
not decide anything itself: `judge.try_move` fits what it proposes and answers with the model that
is then the present one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.fitting import Fitted, Settings, model_from_codes, rough_fit
from reml_sae.discovery.strengths import known_of
from reml_sae.discovery.structure import Structure
from reml_sae.discovery.topology import TopologyChoice
from reml_sae.engine import OuterKey
from reml_sae.manifolds import Manifold
from reml_sae.typing import Array


@dataclass(frozen=True)
class Context:
    """What a move knows beside the present model.

    Attributes
    ----------
    structure : Structure
        What the user left open.
    settings : Settings
    rng : numpy.random.Generator
    choices : sequence of K TopologyChoice
        How the topologies were chosen; empty where they were given.
    candidates : sequence of Manifold
        Topologies among which these were.
    """

    structure: Structure
    settings: Settings
    rng: np.random.Generator
    choices: Sequence[TopologyChoice] = ()
    candidates: Sequence[Manifold] = ()


@dataclass(frozen=True)
class Proposal:
    """A changed model.

    Attributes
    ----------
    atom : int
        Number of the atom in the model that is changed.
    detail : str
        The change, for a reader.
    limit : float
        It is accepted where V rises by less than this, in nats; below zero, V must fall.
    fit : callable
        The changed model, fitted roughly by these settings; None where that leads to no usable
        state. InputError where the penalties or the assignment do not allow it.
    has_returned : callable
        Whether a rough fit has led back to the present model, so that it is not fitted on.
    rise_alone : callable
        By how much V rises on the rows of the atom alone, with all else held; None where that is
        not known. A change for which this is too much is not fitted at all.
    """

    atom: int
    detail: str
    limit: float
    fit: Callable[[Settings], Fitted | None]
    has_returned: Callable[[Fitted], bool] = lambda trial: False
    rise_alone: Callable[[Settings], float | None] = lambda settings: None


Proposals = Generator[Proposal, Fitted, None]
"""Each yields a proposal and receives the present model after its judgement: the one before, where
it was refused."""


class Move(Protocol):
    """One kind of change."""

    @property
    def kind(self) -> str:
        """Name in the record."""

    @property
    def names_only(self) -> bool:
        """Whether what V accepts is named in the record, and the model stays as it is."""

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Whether the structure is open to this move, and the fit such that it is worth a try."""

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Proposals for the model, one after the other."""


def refitted(
    fitted: Fitted, atoms: Sequence[Manifold], codes: Candidate, known: Mapping[OuterKey, float],
    settings: Settings,
) -> Fitted | None:
    """The model with these atoms, fitted roughly from codes and outer parameters by key."""
    model = model_from_codes(fitted.rows, atoms, settings, codes, known)
    return rough_fit(model, settings, "changed model")


def refitted_on_one(
    fitted: Fitted, atom: Manifold, t: Array, settings: Settings
) -> Fitted | None:
    """The rows on one atom in the place of all, at coordinates (n, d), fitted roughly.

    Every row has it whole: gates and amplitudes say nothing of a row's noise.
    """
    known = {key: value for key, value in known_of(fitted).items() if key.atom < 0}
    own = settings if fitted.model.assignment.is_mixture else settings.of_shares()
    return refitted(fitted, [atom], Candidate.on_one_atom(t), known, own)
