"""What the user left open of a model's structure."""

from __future__ import annotations

from dataclasses import dataclass

from reml_sae.manifolds import Circle, Manifold


@dataclass(frozen=True)
class Structure:
    """What the user left open.

    Attributes
    ----------
    topology : Manifold, list of Manifold, or None
        Of all atoms or of each; None where the evidence chooses.
    n_atoms : int or None
        None where the evidence chooses.
    most_atoms : int
        Bound of that choice.
    demote : bool
        Whether a curved atom that was asked for may become flat.
    sizes : bool or tuple of K bool
        Whether the evidence chooses the number of basis functions, of all atoms or of each.
    """

    topology: Manifold | list[Manifold] | None
    n_atoms: int | None
    most_atoms: int
    demote: bool
    sizes: bool | tuple[bool, ...] = False

    def chooses_size(self, k: int) -> bool:
        """Whether the evidence chooses the number of basis functions of atom k."""
        return self.sizes if isinstance(self.sizes, bool) else self.sizes[k]

    def atoms(self, n_atoms: int) -> list[Manifold]:
        """Atoms from which a fit with so many starts; circles where shapes are open."""
        if isinstance(self.topology, list):
            return self.topology
        return [Circle() if self.topology is None else self.topology] * n_atoms
