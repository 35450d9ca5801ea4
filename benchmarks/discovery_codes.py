"""What a row's code stores, and what of the data it explains: one measure for all methods."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass
class Coded:
    """Stored numbers of the test rows.

    index (N, s) of n_atoms; values (N, s, b), NaN where an atom has fewer; low and high
    (n_atoms, b) are the range in which a value is quantised; decode(index, values) -> (N, p); the
    last column is an amplitude where `amplitude`, whose bits are chosen apart.
    """

    label: str
    n_atoms: int
    index: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    decode: Callable
    fit: float
    encode: float
    amplitude: bool = False
    note: str = ""


def ranges(index, values, n_atoms):
    """Range of the training values of each atom, without the last two thousandths at each end."""
    low, high = np.zeros((2, n_atoms, values.shape[2]))
    for g in np.unique(index):
        mine = values[index == g]
        known = ~np.isnan(mine).all(axis=0)
        low[g, known], high[g, known] = np.nanquantile(mine[:, known], [0.002, 0.998], axis=0)
    return low, high


def quantised(coded, bits):
    """Values at the middle of the 2^bits cells of their range; bits for each column."""
    low, width = coded.low[coded.index], (coded.high - coded.low)[coded.index]
    cells = 2.0 ** np.asarray(bits)
    place = np.floor((coded.values - low) / np.where(width > 0.0, width, 1.0) * cells)
    return low + (np.clip(place, 0.0, cells - 1.0) + 0.5) * width / cells


def explained(Z, fitted):
    return 1.0 - ((Z - fitted) ** 2).sum() / ((Z - Z.mean(axis=0)) ** 2).sum()


def score(coded, test, budgets):
    """Explained variance as it is, and the best split of the bits within each budget."""
    stored = (~np.isnan(coded.values)).sum(axis=(0, 1)) / len(test)
    address = coded.index.shape[1] * np.log2(coded.n_atoms)
    numbers = stored.sum() + (coded.index.shape[1] if coded.n_atoms > 1 else 0)
    best = [float("nan")] * len(budgets)
    for main in range(13):
        for other in range(9) if coded.amplitude else (main,):
            bits = np.full(coded.values.shape[2], main)
            bits[-1:] = other
            total = address + (stored * bits).sum()
            open_budgets = [i for i, budget in enumerate(budgets) if total <= budget + 1e-9]
            if open_budgets:
                ev = explained(test, coded.decode(coded.index, quantised(coded, bits)))
                for i in open_budgets:
                    best[i] = float(np.fmax(best[i], ev))
    return {"label": coded.label, "numbers": float(numbers),
            "ev": float(explained(test, coded.decode(coded.index, coded.values))),
            "fit": coded.fit, "encode": coded.encode, "at": best, "note": coded.note}


def linear_decoder(frames, bias):
    """Decoder of frames (n_atoms, b, p)."""
    return lambda index, values: bias + np.einsum(
        "nsb,nsbp->np", np.nan_to_num(values), frames[index])


def dense_codes(codes, k):
    """The k largest of codes (N, M) as index and values."""
    index = np.argsort(-np.abs(codes), axis=1)[:, :k]
    return index, np.take_along_axis(codes, index, axis=1)[:, :, None]
