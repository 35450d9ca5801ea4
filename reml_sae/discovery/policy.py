"""Every threshold of the search in one frozen object, with its unit and its reason.

A nat is a unit of V and of log evidence. What is per row or per entry grows with the data as V
does; what is not is a margin of evidence, the same for all data. A fit keeps the policy that it was
made by, and its artifact does. Guards of floating-point arithmetic are no choice and stay where
they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np

from reml_sae.errors import InputError
from reml_sae.relaxations.policy import PursuitPolicy, RelaxationPolicy
from reml_sae.sweeps import SweepPolicy

FARTHEST = 100
"""How many times the present value one from a file may be: other versions' are not farther."""


@dataclass(frozen=True)
class EncodePolicy:
    """The search over each row's local minima, of the fit and of `transform` alike."""

    information: float = 25.0
    """Nats/rad^2: a second atom's coordinate is carried where its expected information is above
    this, a posterior standard deviation below 0.2, where a Gaussian approximation is good."""
    least_information: float = 1e-6
    """Nats/rad^2: below it a row's own atom is a point, which has no coordinate."""
    slack: float = 4.0
    """Factor within which the active set of a row must be the one that its state calls for."""
    n_candidates: int = 3
    """Count of nearest atoms that a row on the simplex tries."""
    hard_share: float = 0.95
    """Share of the first atom from which a row is refined ..."""
    soft_share: float = 0.7
    """... and a second one, which can lead to a different minimum."""
    sweeps: int = 60
    """Count of Newton sweeps that bring a candidate to its mode."""
    screen_sweeps: int = 5
    """Count of sweeps after which hopeless candidates are dropped."""
    hopeless: float = 40.0
    """Nats above the best evidence from which a candidate is not refined further."""
    grid_curve: int = 64
    """Count of grid points of an atom with one coordinate ..."""
    grid_surface: int = 300
    """... and of one with more."""
    amplitude_width: float = 4.0
    """Prior standard deviations of one within which amplitudes are looked for."""
    pursuit: PursuitPolicy = field(default_factory=PursuitPolicy)


@dataclass(frozen=True)
class StartPolicy:
    """Codes from which a fit starts, and the state at them."""

    least_rows: int = 8
    """Count of rows below which there is no shape to look for."""
    neighbour_shares: tuple[float, ...] = (0.04, 0.2)
    """Shares of the rows that are neighbours in a graph along a loop: loops wind little or much."""
    loop_shares: tuple[float, ...] = (0.02, 0.04, 0.1, 0.2)
    """The same in the graph of the leading scores of rows on one ring."""
    extra_axes: int = 4
    """Count of leading axes beyond an atom's own, which rough functions may use."""
    wide: int = 5
    """Count: a ring that spans more dimensions than this is looked for by all of them too."""
    many_rings: int = 16
    """Count of rings, one a row, from which on sweeps look for them: fewer are found as well by
    clusters, mostly sooner ..."""
    sweeps: SweepPolicy = field(
        default_factory=lambda: SweepPolicy(most_rounds=1, most_sweeps=12, tol=0.01))
    """... and how they do: a start need not have settled."""
    same: float = 0.01
    """Nats within which the rough V of two starts says that they lead to one state."""
    alone_per_row: float = 0.24
    """Nats a row by which the V of noise alone must lie below that of a rough fit for starts amid
    noise: a REML fit of atoms amid long noise lowers a rough V by nearly so much."""
    share_of_variance: float = 0.5
    """Share of the variance that is noise at first."""
    least_left: float = 0.25
    """Share of the noise that residuals are taken to have where rows have hardly more columns than
    codes."""
    log_sparsity: float = 4.0
    """Log strength of a start: it is a hard partition, the mode of a strong entropy penalty; from a
    weak one the assignments of all rows melt together before REML can set its strength."""
    log_amplitudes: float = 2.0
    """Log strength: amplitudes start near one."""
    log_precision: float = 0.0
    """Log precision of pre-activations: a higher one would pull them below the threshold, and the
    decoders up."""
    stiff_decoders: float = 3.0
    """What the log strengths of decoders in a stiff start are above those of others ..."""
    stiff_amplitudes: float = 4.0
    """... and of amplitudes: rows can then find their atoms before either bends after them."""
    stiff_turns: int = 3
    """Count of turns of rows and decoders at stiff priors."""
    stiff_sweeps: int = 3
    """Count of row sweeps in each."""
    same_rows: float = 0.8
    """Share of the rows of every atom in either of two partitions that are in both, above which the
    second is not fitted: settling moves more rows."""
    unexplained: float = 1.25
    """Ratio: starts that leave so much more variance unexplained than the best are not fitted."""
    overdispersed: float = 1.3
    """Ratio of the variance of the rows' squared residuals to that of white noise above which rows
    may mix atoms."""
    mixed_log_sparsity: float = 0.0
    """Log strength of the entropy at which rows that may mix atoms begin."""
    mixed_share: float = 0.6
    """Share of the first atom in these."""
    mixed_turns: int = 15
    """Count of turns of rows and decoders in these."""
    mixed_sweeps: int = 3
    """Count of row sweeps in each turn."""
    mixed_steps: int = 40
    """Count of Newton steps in which one must come to a mode: those of rows that mix atoms do."""
    mixed_rows: float = 0.02
    """Share of the rows that must resolve a second atom for a mixed start to be fitted."""


@dataclass(frozen=True)
class SettlePolicy:
    """REML fits that alternate with the discrete choices."""

    rough_steps: int = 4
    """Count of Fellner-Schall steps of a rough fit: enough to rank by V ..."""
    rough_nodes: int = 1000
    """... and of nodes at its start beyond which its rows are left to Laplace's method ..."""
    rough_lines: int = 50
    """... the same where a linear coordinate of every row's own is integrated at each of them."""
    most_rounds: int = 6
    """Count of REML fits."""
    most_rough_rounds: int = 12
    """Count of rough fits before them."""
    rough_gain: float = 1.0
    """Nats by which V must fall for another rough fit."""
    few_moved: float = 0.002
    """Share of the rows that still move when the rough and loose rounds end."""
    loose_tol: float = 1e-4
    """Gradient tolerance of a loose round, relative to V."""
    slack: float = 0.1
    """Nats within which a V of loose inner solves says nothing."""
    missed: float = 0.1
    """Nats by which V of a quadrature must differ from Laplace's for a fit by it to be made."""
    mode_sweeps: int = 60
    """Count of Newton sweeps that bring rows to their modes after a fit of integrated rows."""


@dataclass(frozen=True)
class NoisePolicy:
    """Fits in the metric of the noise that they leave."""

    nothing: float = 1e-6
    """Share of the rows' variance below which noise of a shape is not looked for."""
    most_turns: int = 20
    """Count of times that the noise is chosen anew; each turn of an EM algorithm is a small one."""
    slowest: float = 0.95
    """Ratio of the fall of V in one turn to that in the turn before, at most."""
    least_gain: float = 0.1
    """Nats by which the noise must fit its present second moment better for another turn ..."""
    least_fall: float = 0.02
    """... and by which V must then fall for a next one."""
    most_rounds: int = 3
    """Count of times that both are polished, and the noise then chosen anew ..."""
    most_polished: int = 60
    """... of quasi-Newton steps of rho and the noise at once ..."""
    polished: float = 0.01
    """... and the nats that one must gain for a next."""


@dataclass(frozen=True)
class MovePolicy:
    """Changes of the structure, and when V accepts them."""

    margin: float = 3.0
    """Nats by which a curved atom must beat a flat, and a changed model the present one: odds of
    twenty to one."""
    within_per_row: float = 0.25
    """Nats a row by which a rough V may miss what is accepted and still be fitted on."""
    most_outer: int = 60
    """Count of outer iterations of a fit by which a change is judged."""
    alone_tol: float = 1e-5
    """Gradient tolerance of the fit of one atom on its own rows, which leaves its V right to a
    hundredth of a nat."""
    patience: int = 2
    """Count of births in a row that do not lower V, after which no more are tried."""
    birth_chains: int = 3
    """Count of chains of moves by which the atoms of each number are looked for, at most."""
    idle_rows: int = 2
    """Count of rows up to which an atom is removed whatever V says: they are its coordinates."""
    same_subspace: float = 0.95
    """Least cosine between the subspaces of two atoms that lie on each other ..."""
    same_centre: float = 0.3
    """... and the distance of their centres, as a share of the larger radius."""
    most_flat: int = 4
    """Count of dimensions of a flat that is tried in the place of a curved atom."""
    flat_prior: float = 20.0
    """Nats a direction by which V of a flat may be below that of noise with the same directions:
    one model of the rows under two priors (5 to 14 in 50 to 300 rows of 20 to 400 columns)."""
    flat_rows: int = 600
    """Count of rows to which both are fitted on their own first."""
    outlying: float = 6.0
    """Median deviations beyond the median distance from an atom at which a row says nothing of its
    shape."""
    most_rivals: int = 3
    """Count of topologies that are tried in the joint model in the place of one."""
    rival_per_row: float = 0.75
    """Nats a row by which they may be behind it on the atom's own rows."""
    most_regroups: int = 3
    """Count of pairs of atoms whose rows are shared out anew ..."""
    regroup_near: float = 1.0
    """... of those with rows that are no more radii of the other atom away from it ..."""
    regroup_share: float = 0.05
    """... and the least share of such rows."""
    regrouped: float = 0.97
    """Share of the rows that stay where they are above which nothing has been shared out."""
    rough_share: float = 0.05
    """Share of an atom's variance by rough functions below which its chart is that of its simplest
    shape, but for details."""
    returned: float = 0.5
    """Part of that share that a restart has won again where it has come back to the same curve."""
    restart_gain: float = 0.1
    """Nats by which V must fall at a restart: the model is the same, so evidence has no say."""
    restart_rise: float = 10.0
    """Nats by which EM from the simplest shape may end above EM from an atom's codes for that to be
    fitted: of atoms with one coordinate in isotropic noise the one foretells the other."""
    restart_stiffness: float = 10.0
    """Ratio of the least rough function's penalty at a restart to what the rows know of it."""
    sizes_ahead: int = 4
    """Count of basis sizes up and down from an atom's own whose V is predicted at its codes."""
    resize_gain: float = 0.1
    """Nats by which another size must lower V: it is V, with a uniform prior on sizes, that
    chooses."""
    resize_slack: tuple[float, float] = (0.3, 2.0)
    """Nats between which V may be predicted to rise with a wider basis that is worth a fit: below,
    its functions are shut out, and lower V as little as they raise it."""
    rows_per_function: int = 10
    """Count of rows that an atom needs for every function of a basis that V chooses: with fewer, V
    falls for every function more that lets the curve run through groups of rows."""
    restart_grid: int = 200
    """Count of points on which an atom's share of rough functions is read."""


@dataclass(frozen=True)
class TopologyPolicy:
    """The topology of one atom from its own rows."""

    rounds: int = 2
    """Count of times that the topologies of a joint model are chosen: each changes the rows of the
    others."""
    most_columns: int = 10
    """Count of leading scores of the rows of one atom when they are fitted on their own."""
    local_tol: float = 1e-4
    """Gradient tolerance there, which leaves V right to a small part of the margin."""
    least_amplitude: float = 0.5
    """Share of their median: rows that use an atom less are left out of its local rows."""
    least_weight: float = 0.1
    """Weight of a row of unequal scale below which it is left out, too."""
    sample_rows: int = 250
    """Count of rows to which all candidates are fitted, permuted or not ..."""
    final_rows: int = 2000
    """... and those that are close."""
    n_settled: int = 4
    """Count of the best candidates, and flats beside them, fitted to the sample by REML."""
    rough_per_row: float = 0.5
    """Nats a row by which a rough V may be behind the best and be fitted on by REML ..."""
    close_per_row: float = 0.25
    """... and one of REML to be fitted to all rows, where more functions may have earned their
    price."""
    n_permutations: int = 19
    """Count: the level of the test is one in one more than this, 5 %."""
    least_permutations: int = 4
    """Count before which the test is not ended early."""
    sure: float = 1e-3
    """Tail probability of the observed statistic, if permuted ones are normal, that ends it."""

    @property
    def level(self) -> float:
        """The least p-value of a test that was not ended early."""
        return 1.0 / (1 + self.n_permutations)


@dataclass(frozen=True)
class SearchPolicy:
    """Every threshold of the search, by topic."""

    encode: EncodePolicy = field(default_factory=EncodePolicy)
    start: StartPolicy = field(default_factory=StartPolicy)
    relaxation: RelaxationPolicy = field(default_factory=RelaxationPolicy)
    settle: SettlePolicy = field(default_factory=SettlePolicy)
    noise: NoisePolicy = field(default_factory=NoisePolicy)
    move: MovePolicy = field(default_factory=MovePolicy)
    topology: TopologyPolicy = field(default_factory=TopologyPolicy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for an artifact."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchPolicy:
        """Inverse of `to_dict`; what an older artifact does not hold is as it is by default.

        Raises
        ------
        InputError
            Naming a value that no version has.
        """
        changed: SearchPolicy = _changed(cls(), values, "policy")
        return changed


def _changed(topic: Any, values: Mapping[str, Any], place: str) -> Any:
    """The dataclass with these values, field by field; others than it has are left out."""
    kept = {}
    for name, value in values.items():
        if name in vars(topic):
            own = getattr(topic, name)
            kept[name] = (_changed(own, value, f"{place}.{name}") if is_dataclass(own)
                          else _in_range(own, value, f"{place}.{name}"))
    return replace(topic, **kept)


def _in_range(own: Any, value: Any, place: str) -> Any:
    """A value beside the one that it replaces, of its sort and its order of magnitude."""
    if isinstance(own, tuple):
        if not isinstance(value, list | tuple) or not 0 < len(value) <= FARTHEST:
            raise InputError(f"{place} must be a list of numbers, got {value!r:.60}")
        return tuple(_in_range(own[0], item, f"{place}[{i}]") for i, item in enumerate(value))
    sort = int if isinstance(own, int) else int | float
    low = (1 if sort is int else 0.0) if own >= 0.0 else -np.inf
    high = FARTHEST * max(abs(own), 1.0)
    if isinstance(value, bool) or not isinstance(value, sort) or not low <= value <= high:
        raise InputError(f"{place} must be {'an integer' if sort is int else 'a number'} from "
                         f"{low:g} to {high:g}, got {value!r:.60}")
    return value
