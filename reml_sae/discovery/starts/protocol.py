"""What a start is: codes of all rows, proposed from the data alone.

To add one, write a class with `propose` and name it in `registry.STARTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reml_sae.assignments import Assignment
from reml_sae.discovery.codes import Candidate
from reml_sae.discovery.policy import SearchPolicy
from reml_sae.engine import Deadline
from reml_sae.manifolds import Manifold
from reml_sae.relaxations.joint_search import Tries
from reml_sae.typing import Array


@dataclass(frozen=True)
class CodeStart:
    """One start.

    Attributes
    ----------
    codes : Candidate
        Support, amplitudes and coordinates of all rows.
    explained : float or None
        Share of the variance that the linear relaxation explains, comparable between starts; None
        for a start that must be ranked by the criterion alone.
    sure : bool
        Whether no other kind of start need be asked.
    noise : (p, p) array or None
        Second moment of the noise, up to a factor, where the start knows more of it than its codes
        leave.
    tries : Tries or None
        Of the search that has found it, where that tries again until several agree.
    """

    codes: Candidate
    explained: float | None
    sure: bool = False
    noise: Array | None = None
    tries: Tries | None = None

    @property
    def labels(self) -> NDArray[np.intp]:
        """The atom (N,) that a row uses most."""
        return np.where(self.codes.support, self.codes.amplitudes, 0.0).argmax(axis=1)


@dataclass(frozen=True)
class StartProblem:
    """What starts are proposed for.

    Attributes
    ----------
    Z : (N, p) array
        Centred data in units of their root mean square.
    atoms : sequence of K Manifold
    assignment : Assignment
    n_init : int
        How many starts of one kind there are at most.
    policy : SearchPolicy
    seeds : sequence of CodeStart
        Codes that may lead to better ones.
    sizes_open : bool
        Whether the number of basis functions of atoms is to be chosen later.
    deadline : Deadline
    """

    Z: Array
    atoms: Sequence[Manifold]
    assignment: Assignment
    n_init: int
    policy: SearchPolicy
    seeds: Sequence[CodeStart] = ()
    sizes_open: bool = False
    deadline: Deadline = field(default_factory=Deadline)

    @property
    def is_partition(self) -> bool:
        """Whether a start gives every row to one atom."""
        return (self.assignment.is_mixture or self.assignment.most_active == 1
                or len(self.atoms) == 1)

    @property
    def is_one_ring(self) -> bool:
        """Whether all rows lie on one ring."""
        return len(self.atoms) == 1 and self.atoms[0].relaxation == "ring"

    @property
    def tells_atoms(self) -> bool:
        """Whether rows are to be told by the one of several atoms that each is on."""
        return self.is_partition and len(self.atoms) > 1 and all(self.dims)

    @property
    def is_one_flat(self) -> bool:
        """Whether all rows lie on one flat: its prior alone tells it from factors of noise."""
        return len(self.atoms) == 1 and self.atoms[0].is_flat

    @property
    def tells_curves(self) -> bool:
        """Whether rows tell their atoms from noise of any covariance that all of them share."""
        return self.is_partition and all(self.dims) and not self.is_one_flat

    @property
    def has_many_rings(self) -> bool:
        """Whether every row is on one of many rings, as sweeps find them."""
        return (len(self.atoms) >= self.policy.start.many_rings
                and not self.assignment.is_mixture and self.assignment.most_active == 1
                and all(atom.relaxation == "ring" and atom.has_rule for atom in self.atoms))

    @property
    def is_exact(self) -> bool:
        """Whether every row uses the same number of atoms."""
        return self.assignment.least_active == self.assignment.most_active

    @cached_property
    def dims(self) -> list[int]:
        """Dimension of the subspace that holds most of each atom."""
        return [atom.linear_dim for atom in self.atoms]

    @property
    def can_be_unmixed(self) -> bool:
        """Whether a square unmixing of the atoms says something beside a dictionary of them.

        The data must have a dimension for each of theirs; and rows that all use the same number
        of atoms must use most of them.
        """
        n_active, p = self.assignment.most_active, self.Z.shape[1]
        complete = n_active > 1 and sum(min(dim, p) for dim in self.dims) <= p
        mostly = 2 * n_active > len(self.atoms) or not self.is_exact
        return not self.is_partition and complete and mostly


class Start(Protocol):
    """One kind of start."""

    def propose(self, problem: StartProblem, rng: np.random.Generator) -> list[CodeStart]:
        """Starts of this kind, the best explained first; none where it has nothing to say."""


def on_one_atom(coordinates: Array) -> CodeStart:
    """A start of rows that all use the only atom, which the criterion alone can rank."""
    return CodeStart(Candidate.on_one_atom(coordinates), None)
