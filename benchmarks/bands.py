"""Coverage of the 95 % bands of a planted closed curve, and bias of the noise that REML finds.

A curve is identified up to a rotation and a reflection of its coordinate, so the fitted curve is
first turned to where it lies closest to the planted one.
"""

import warnings

import numpy as np
from scipy.optimize import minimize_scalar

import reml_sae as rs

SEEDS, ROWS, COLUMNS = 40, 300, 8
GRID = np.linspace(-np.pi, np.pi, 60, endpoint=False)


def planted(rng):
    frame = np.linalg.qr(rng.normal(size=(COLUMNS, 4)))[0].T * [[1.0], [1.0], [0.4], [0.3]]

    def curve(t):
        return np.column_stack([np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t)]) @ frame

    return curve


def aligned(atom, target):
    """Fitted coordinates of the planted grid."""
    best = None
    for sign in (1.0, -1.0):
        def distance(shift, sign=sign):
            return ((atom.curve(sign * GRID + shift) - target) ** 2).sum()

        starts = np.linspace(-np.pi, np.pi, 60)
        start = starts[np.argmin([distance(shift) for shift in starts])]
        found = minimize_scalar(distance, bounds=(start - 0.2, start + 0.2), method="bounded",
                                options={"xatol": 1e-9})
        if best is None or found.fun < best[0]:
            best = found.fun, sign * GRID + found.x
    return best[1]


def main():
    warnings.simplefilter("ignore")
    print(f"{SEEDS} seeds, N = {ROWS}, p = {COLUMNS}; coverage of pointwise 95 % bands")
    print("noise sd  converged  coverage  its standard error  mean noise sd / planted")
    for sd in (0.05, 0.15, 0.3):
        coverage, noise, converged = [], [], 0
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            curve = planted(rng)
            t = rng.uniform(-np.pi, np.pi, ROWS)
            data = curve(t) + sd * rng.normal(size=(ROWS, COLUMNS))
            topology = rs.manifolds.Circle(n_harmonics=4)
            model = rs.SAEManifold(n_atoms=1, topology=topology).fit(data)
            converged += model.converged_
            atom, target = model.atoms_[0], curve(GRID)
            low, high = atom.band(aligned(atom, target), 0.95)
            coverage.append(np.mean((target >= low) & (target <= high)))
            noise.append(np.sqrt(model.dispersion_) / sd)
        print(f"{sd:8.2f} {converged:6d}/{SEEDS} {np.mean(coverage):10.3f} "
              f"{np.std(coverage) / np.sqrt(SEEDS):14.4f} {np.mean(noise):18.4f}", flush=True)


if __name__ == "__main__":
    main()
