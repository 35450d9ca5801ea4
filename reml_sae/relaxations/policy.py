"""How many rows, starts and tries the relaxations spend, and what they take for the same answer.

`SearchPolicy` of discovery holds these; tolerances of arithmetic stay where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PartitionPolicy:
    """Clusters of rows by rings and flats."""

    em_rows: int = 6000
    """Count of rows that refine the pieces at most."""
    graph_rows: int = 800
    """Count of rows in a graph of neighbours at most: its work is their square."""


@dataclass(frozen=True)
class LoopPolicy:
    """Angles along a loop."""

    most_rows: int = 1500
    """Count of rows in the graph at most; the others take their neighbour's angle."""
    least_rows: int = 12
    """Count of rows below which there is no graph."""


@dataclass(frozen=True)
class GridPolicy:
    """Coordinates on a latent grid."""

    coarse_rows: int = 500
    """Count of rows of the short runs ..."""
    coarse_grid: int = 200
    """... and of their grid points."""
    fine_rows: int = 2000
    """Count of rows of the runs that the best are carried on to ..."""
    fine_grid: int = 500
    """... and of their grid points."""
    neighbour_shares: tuple[float, ...] = (0.03, 0.1)
    """Neighbours of a row in the graphs of the eigenmaps, as a share of the rows."""
    more_frames: int = 2
    """Count of first decoders of each sort beyond the number of starts asked for."""
    more_polished: int = 5
    """Count of short runs that are run on beyond the starts asked for: a coarse grid ranks tightly
    wound atoms badly."""
    nearly: float = 3e-3
    """Change of log s2 a sweep at which a short run ends."""
    same: float = 0.1
    """Share of the noise by which reconstructions must differ to be two starts."""


@dataclass(frozen=True)
class CarryPolicy:
    """Coordinates carried on by EM before they are fitted: that takes milliseconds, a fit more."""

    most_planes: int = 24
    """Count of random planes whose angles are carried on at most ..."""
    agree: int = 3
    """... and of those that have come to the best end when no more are ..."""
    alike: float = 0.5
    """... within so many nats."""
    patience: int = 12
    """Count of crosses in turn that are no better than the best end when no more are tried."""
    close_per_row: float = 0.25
    """Nats a row by which the evidence of an end may be behind the best and be fitted ..."""
    most_kept: int = 3
    """... and the count of those that are, at most."""


@dataclass(frozen=True)
class BlockPolicy:
    """Block-sparse dictionaries."""

    most_rows: int = 3000
    """Count of rows of the search at most; the last sweeps use all."""
    beam: int = 3
    """Count of sets of atoms of a row that survive each atom more."""
    seeds: int = 30
    """Count of rows from which candidate frames start."""
    hits: float = 0.2
    """Power at which the number of seeds that reach a frame enters its rank."""
    shrink: float = 0.1
    """Share of the mean variance that whitening adds: it keeps the noise of weak directions small.
    """


@dataclass(frozen=True)
class UnmixingPolicy:
    """Square unmixing."""

    most_rows: int = 3000
    """Count of rows of the likelihood at most."""
    restarts: int = 5
    """Count of random starts at most ..."""
    agree: float = 2e-3
    """... and the nats a row within which two of them have come to the same."""
    tries: int = 30
    """Count of times that blocks are mixed anew at most ..."""
    patience: int = 12
    """... and of those in a row that do not raise the likelihood ..."""
    gain: float = 1e-3
    """... by more than these nats a row."""
    most_mixed: int = 4
    """Count of blocks that are mixed anew at once."""
    disorder: float = 0.3
    """Noise on the blocks' nats a dimension, so that repairs do not only mix the same ones."""


@dataclass(frozen=True)
class PursuitPolicy:
    """How far a pursuit over curves looks."""

    sure_size: int = 4
    """Count: where rows may use few atoms or many, sets of so many are tried whatever they gain;
    larger ones while any row gains more by them than the luckiest would by noise."""
    beams: int = 3
    """Count of best first atoms from which a pursuit starts."""
    exchanges: int = 2
    """Count of rounds in which every point is exchanged for the best."""
    span_sets: int = 4
    """Count of sets of atoms of a row, of one size, tried for what their spans explain."""


@dataclass(frozen=True)
class NoiseMixturePolicy:
    """Flats amid noise of any covariance, one a row."""

    most_axes: int = 40
    """Count of leading axes of the rows at most ..."""
    rows_per_axis: int = 8
    """... and of rows for each of them, and each flat, at least."""
    most_rows: int = 2000
    """Count of rows that the parameters are from at most."""
    more_starts: int = 6
    """Count of short runs for each start asked for ..."""
    short_sweeps: int = 30
    """... of EM, and the count of its sweeps."""
    more_polished: int = 3
    """Count of short runs that are run on beyond the starts asked for ..."""
    sweeps: int = 150
    """... and of their sweeps."""
    nearly: float = 1e-4
    """Nats a row that a sweep must gain for a next one."""
    same: float = 0.98
    """Share of the rows that two starts must give to the same atoms to be one."""


@dataclass(frozen=True)
class JointPolicy:
    """Atoms that rows use one at a time, in the joint mixture of all of them."""

    curve_points: int = 64
    """Count of grid points of an atom with one coordinate ..."""
    surface_points: int = 300
    """... and of one with more."""
    most_axes: int = 40
    """Count of leading axes of the rows at most ..."""
    rows_per_axis: int = 8
    """... and of rows for each of them at least."""
    least_sample: int = 500
    """Count of rows of which no fewer are taken for the parameters ..."""
    rows_per_atom: int = 60
    """... and for each atom."""
    sweeps: int = 150
    """Count of sweeps of EM at most."""
    nearly: float = 1e-3
    """Nats a row that a sweep must gain for a next one."""
    hopeful: float = 0.1
    """Share of what is missing to a goal that a sweep must gain."""
    few_random: int = 4
    """Count of random seeds at most in white noise, ..."""
    more_random: int = 8
    """... of others there where two have come to the best, ..."""
    most_random: int = 40
    """... and in noise of any covariance, ..."""
    agree: int = 4
    """... and of seeds that have come to the best end when no more are tried ..."""
    alike: float = 2.0
    """... within so many nats and the gain of so many last sweeps."""
    unsettled: float = 4.0
    patience: int = 25
    """Count of moves in turn, for each atom, that were no better when no more are tried ..."""
    confirmed: int = 5
    """... or that came back."""
    most_chains: int = 8
    """Count of seeds from which moves lead on, where no two come to the best."""
    least_rows: int = 3
    """Count of rows with which an atom begins anew."""
    close_per_row: float = 0.1
    """Nats a row by which the evidence of an end may be behind the best and be fitted ..."""
    same: float = 0.1
    """... the share of the noise by which its curves must differ from a better one ..."""
    most_kept: int = 3
    """... and the count of those that are, at most."""


@dataclass(frozen=True)
class OrderPolicy:
    """The order in which a curve goes through its rows."""

    joint: JointPolicy = field(default_factory=lambda: JointPolicy(most_axes=12))
    """Of the mixture."""
    seeds: int = 40
    """Count of random seeds at most."""
    patience: int = 100
    """Count of moves of arcs in turn that were no better when no more are tried."""
    gain: float = 5.0
    """Nats by which the evidence of another order must be above that of the present one."""


@dataclass(frozen=True)
class RelaxationPolicy:
    """Of all relaxations from which a fit starts."""

    partition: PartitionPolicy = field(default_factory=PartitionPolicy)
    loop: LoopPolicy = field(default_factory=LoopPolicy)
    grid: GridPolicy = field(default_factory=GridPolicy)
    carry: CarryPolicy = field(default_factory=CarryPolicy)
    blocks: BlockPolicy = field(default_factory=BlockPolicy)
    unmixing: UnmixingPolicy = field(default_factory=UnmixingPolicy)
    noise_mixture: NoiseMixturePolicy = field(default_factory=NoiseMixturePolicy)
    joint: JointPolicy = field(default_factory=JointPolicy)
    order: OrderPolicy = field(default_factory=OrderPolicy)
