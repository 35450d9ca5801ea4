"""Sparse Cholesky: factor, log-determinant and selected inverse, CHOLMOD against scipy's SuperLU.

"analysis" is what the first matrix of a pattern costs beyond the next ones: the ordering, and the
schedule of the selected inverse. Ratios are SuperLU / CHOLMOD within one run.
"""

import time

import numpy as np
import scipy
from scipy import sparse

from reml_sae.linalg import SparseCholesky, _cholmod, _sparse

BACKENDS = ("cholmod", "splu")
REPEATS = 3


def chain(n, block):
    off = -np.ones(n // block - 1)
    path = sparse.diags_array([off, np.full(n // block, 2.1), off], offsets=[-1, 0, 1])
    return sparse.csc_array(sparse.kron(path, np.ones((block, block))) + sparse.eye_array(n))


def grid(n):
    m = round(np.sqrt(n))
    path, one = chain(m, 1), sparse.eye_array(m)
    return sparse.csc_array(sparse.kron(path, one) + sparse.kron(one, path))


def seconds(function):
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result


def measure(matrix, backend):
    """Seconds of analysis, factor, log-determinant, solve and selected inverse; best of a few."""
    _sparse._pattern_of.cache_clear()
    first, factor = seconds(lambda: SparseCholesky.of(matrix, "A", backend))
    first += seconds(factor.selected_inverse)[0]
    rows = []
    for _ in range(REPEATS):
        t_factor, factor = seconds(lambda: SparseCholesky.of(matrix, "A", backend))
        rows.append((t_factor, seconds(factor.logdet)[0],
                     seconds(lambda factor=factor: factor.solve(np.ones(factor.n)))[0],
                     seconds(factor.selected_inverse)[0]))
    best = np.min(rows, axis=0)
    schedule = factor._pattern.schedule(factor._factored)
    return np.array([first - best[0] - best[3], *best]), len(schedule.levels), len(schedule.keys)


def main():
    module = _cholmod.cholmod_module()
    if module is None:
        raise SystemExit("scikit-sparse is missing: sh scripts/suitesparse && "
                         "pip install -e '.[cholmod]'")
    print(f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-sparse interface "
          f"{'0.5' if hasattr(module, 'CholeskyFactor') else '0.4'}")
    print("milliseconds\nmatrix         n  backend  analysis  factor  logdet  solve  selected "
          "inverse  levels  entries of L")
    for name, make in (("chain 1x1", lambda n: chain(n, 1)), ("chain 2x2", lambda n: chain(n, 2)),
                       ("grid", grid)):
        for n in (10_000, 100_000):
            matrix, found = make(n), []
            for backend in BACKENDS:
                times, levels, entries = measure(matrix, backend)
                found.append(times)
                a, f, d, s, z = 1e3 * times
                print(f"{name} {matrix.shape[0]:7d}  {backend:7s} {a:9.1f} {f:7.1f} {d:7.2f} "
                      f"{s:6.1f} {z:17.1f} {levels:7d} {entries:13d}", flush=True)
            a, f, _, s, z = found[1] / found[0]
            print(f"{'':18s} ratio   {a:9.2f} {f:7.2f} {'':7s} {s:6.2f} {z:17.2f}", flush=True)
    print("\nselected inverse against a dense inverse: largest error / largest entry, dense / ours")
    for name, matrix in (("chain 2x2", chain(2000, 2)), ("grid", grid(2025))):
        t_dense, dense = seconds(lambda matrix=matrix: np.linalg.inv(matrix.toarray()))
        row, column = sparse.coo_array(matrix).coords
        for backend in BACKENDS:
            factor = SparseCholesky.of(matrix, "A", backend)
            factor.selected_inverse()
            t_ours = seconds(lambda backend=backend, matrix=matrix: SparseCholesky.of(
                matrix, "A", backend).selected_inverse())[0]
            error = np.abs(factor.inverse_at(row, column) - dense[row, column]).max()
            print(f"{name} {len(dense):5d}  {backend:7s} {error / np.abs(dense).max():8.1e} "
                  f"{t_dense / t_ours:6.1f}")


if __name__ == "__main__":
    main()
