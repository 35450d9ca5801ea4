"""The moves of a settled fit, in the order in which they are tried."""

from __future__ import annotations

from reml_sae.discovery.moves.flats import Demote, NameFlatTwin, NameOneFlat
from reml_sae.discovery.moves.merge import Merge
from reml_sae.discovery.moves.protocol import Move
from reml_sae.discovery.moves.regroup import Regroup
from reml_sae.discovery.moves.remove import NameNoAtom, Remove, RemoveLast
from reml_sae.discovery.moves.reorder import Reorder
from reml_sae.discovery.moves.reshape import Reshape
from reml_sae.discovery.moves.resize import Resize
from reml_sae.discovery.moves.restart import Restart

MOVES: tuple[Move, ...] = (
    Reshape(), Regroup(), Merge(), Remove(), Restart(), Resize(), Reorder(), Demote(),
    RemoveLast(), NameNoAtom(), NameOneFlat(), NameFlatTwin())
