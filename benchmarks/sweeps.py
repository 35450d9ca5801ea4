"""Fits of many atoms by sweeps alone: seconds a sweep, seconds of a fit, memory and accuracy.

`python benchmarks/sweeps.py [--cases rows atoms columns fit ..] [--device numpy] > out.txt`

Rows are of planted circles of radius 1 in random planes and noise .05, one a row; they are made on
the device, in float32. "sweep" is one pass over all rows at the fitted state that looks at all
atoms, and "again" one among the atoms that rows know; both with the M step. "rows/s" are encoded:
their atoms, among four candidates, nodes and amplitudes. "samples" are seconds of the fit for
sweeps of samples, seeds and repairs among them. "against numpy" is the largest relative difference
of the sums of a sweep from those of NumPy in float64 at the same state. MB is the peak of the
process, or of the GPU, the data included. "atoms" are the planted circles of which one atom has
nine rows in ten. With --whole the fit is one by `SAEManifold` with codes, V and posterior, on rows
in a file, which "rows/s" is `encode` of; then slopes are stated of the CPU seconds, of those of a
sweep and of MB, from each size to the next, as powers of the number of rows, atoms or columns.
With --most that fit is cut off after so many sweeps over all rows, and encodes none again.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
from scipy.optimize import linear_sum_assignment

from reml_sae import SAEManifold
from reml_sae.manifolds import Circle
from reml_sae.sweeps import SweepPolicy, fit_sweeps, get_backend, sweep
from reml_sae.sweeps.update import updated


@dataclass(frozen=True)
class Case:
    K: int
    N: int
    p: int


CASES = {
    "rows": [Case(32, n, 64) for n in (4000, 16000, 64000, 256_000)],
    "atoms": [Case(k, 125 * k, 64) for k in (8, 32, 128, 512)],
    "columns": [Case(32, 4000, p) for p in (64, 256, 1024, 4096)],
    "memory": [Case(64, n, 768) for n in (10_000, 40_000)],
    "small": [Case(100, 20_000, 128)],
    "paper": [Case(128, 300_000, 128)],
    "large": [Case(1000, 100_000, 768)],
    "million": [Case(1000, 1_000_000, 768)],
    "file": [Case(100, 1_000_000, 768)],
}
CHUNK = 50_000


def planted(case: Case, backend, seed: int):
    """Standardised rows on the device, and their labels."""
    rng = np.random.default_rng(seed)
    frames = np.linalg.qr(rng.normal(size=(case.K, case.p, 2)))[0].transpose(0, 2, 1)
    labels, angles = rng.integers(case.K, size=case.N), rng.uniform(-np.pi, np.pi, case.N)
    Z, frames = backend.zeros((case.N, case.p), backend.narrow), backend.array(frames)
    for start in range(0, case.N, CHUNK):
        own = slice(start, start + CHUNK)
        t = backend.array(np.column_stack([np.cos(angles[own]), np.sin(angles[own])]))
        plane = frames[backend.array(labels[own], backend.xp.int64)]
        Z[own] = t[:, :1] * plane[:, 0] + t[:, 1:] * plane[:, 1] + 0.05 * normal(
            backend, len(t), case.p, rng)
    mean = backend.xp.sum(Z, axis=0) / case.N
    Z -= mean
    square = sum(float(backend.xp.sum(Z[start:start + CHUNK] ** 2))
                 for start in range(0, case.N, CHUNK))
    Z /= (square / (case.N * case.p)) ** 0.5
    return Z, labels


def normal(backend, n: int, p: int, rng):
    if backend.xp is np:
        return rng.standard_normal((n, p), dtype=np.float32)
    backend.xp.manual_seed(int(rng.integers(2**31)))
    return backend.xp.randn((n, p), dtype=backend.narrow, device=backend.array(0.0).device)


def synchronised(backend) -> float:
    if backend.xp is not np and backend.xp.cuda.is_available():
        backend.xp.cuda.synchronize()
    return time.perf_counter()


def peak(backend) -> float:
    if backend.xp is not np and backend.xp.cuda.is_available():
        return backend.xp.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def accuracy(found, labels, K: int) -> tuple[float, int]:
    """Share of rows in the atom of their circle, and circles of which an atom has most rows."""
    table = np.zeros((K, K))
    np.add.at(table, (found, labels), 1)
    rows, columns = linear_sum_assignment(-table)
    right = table[rows, columns]
    return right.sum() / len(labels), int((right > 0.9 * table.sum(axis=0)[columns]).sum())


def measure(case: Case, device: str, seed: int, against: bool) -> None:
    backend = get_backend(device)
    Z, labels = planted(case, backend, seed)
    start, cpu = synchronised(backend), time.process_time()
    told = [("", start)]
    fit = fit_sweeps(Z, [Circle(1)] * case.K, backend, seed,
                     watch=lambda stage, state, value: told.append((stage, time.perf_counter())))
    whole, cpu = synchronised(backend) - start, time.process_time() - cpu
    samples = sum(now - before for (_, before), (stage, now) in pairwise(told) if stage == "sample")
    offset, seconds = np.zeros(case.p), []
    for candidates in (None, fit.codes.candidates):
        start = synchronised(backend)
        sums = sweep(Z, fit.state, backend, offset=offset, candidates=candidates)[0]
        updated(fit.state, sums)
        seconds.append(synchronised(backend) - start)
    start = synchronised(backend)
    sweep(Z, fit.state, backend, offset=offset, n_candidates=SweepPolicy().n_encoded)
    rate = case.N / (synchronised(backend) - start)
    share, atoms = accuracy(fit.codes.labels, labels, case.K)
    line = (f"{device:>6} {case.K:5d} {case.N:8d} {case.p:4d} {seed:4d} {seconds[0]:8.2f} "
            f"{seconds[1]:8.2f} {rate:8.0f} {whole:8.1f} {samples:8.1f} {cpu:8.1f} "
            f"{len(fit.trace):6d} {peak(backend):8.0f} "
            f"{fit.trace[-1] / case.N:14.6f} {1.0 - fit.state.dispersion:9.6f} {share:8.4f} "
            f"{atoms:6d}")
    if against:
        own = get_backend(precision="float64")
        exact = sweep(backend.numpy(Z).astype(float), fit.state, own, offset=offset)[0]
        sums = sweep(Z, fit.state, backend, offset=offset)[0]
        apart = [abs(sums.value / exact.value - 1.0)] + [
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(sums.crossed + sums.grams, exact.crossed + exact.grams, strict=True)]
        line += f"  {max(apart):.1e} against numpy"
    print(line, flush=True)


SIZE = {"rows": "N", "atoms": "K", "columns": "p"}
"""What grows in the cases whose slopes are stated."""


def show_slopes(name: str, cases: list[Case], found: list[tuple[float, float, float]]) -> None:
    """Powers of the size in which seconds, seconds a sweep and MB grow, from each to the next."""
    sizes = np.log([getattr(case, SIZE[name]) for case in cases])
    for what, values in zip(("CPU s", "CPU s a sweep", "MB"), zip(*found, strict=True),
                            strict=True):
        slopes = np.diff(np.log(values)) / np.diff(sizes)
        print(f"{name}: {what} as {SIZE[name]} to the", ", ".join(f"{x:.2f}" for x in slopes),
              flush=True)


def measure_whole(
    case: Case, device: str, seed: int, most: int | None
) -> tuple[float, float, float]:
    """`SAEManifold` on rows in a file, in a process of its own, whose memory is then its peak.

    Returns CPU seconds, those of a sweep, and MB.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.npy"
        Z, labels = planted(case, get_backend(device), seed)
        np.save(path, get_backend(device).numpy(Z))
        del Z
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found, line, took = pool.submit(_whole, path, case.K, device, seed, most).result()
    share, atoms = accuracy(found, labels, case.K)
    print(f"{device:>6} {case.K:5d} {case.N:8d} {case.p:4d} {seed:4d} {line} {share:8.4f} "
          f"{atoms:6d}", flush=True)
    return took


def _whole(
    path: str, K: int, device: str, seed: int, most: int | None
) -> tuple[np.ndarray, str, tuple[float, float, float]]:
    backend, start, cpu = get_backend(device), time.perf_counter(), time.process_time()
    model = SAEManifold(n_atoms=K, topology=Circle(1), assignment="topk", solver="sweeps",
                        random_state=seed, device="cpu" if device == "numpy" else device,
                        **({} if most is None else {"max_outer": most})).fit(path)
    fit, wall = time.process_time() - cpu, synchronised(backend) - start
    start, rate = time.perf_counter(), np.nan
    if most is None:
        model.encode(path)
        rate = len(model.codes_) / (time.perf_counter() - start)
    return model.codes_.labels, (
        f"{rate:26.0f} {wall:8.1f} {fit:17.1f} {len(model.trace_):6d} "
        f"{peak(backend):8.0f} {model.criterion_ / len(model.codes_):14.6f} "
        f"{1.0 - model.dispersion_ / model.scale_**2:9.6f}"), (
        fit, fit / len(model.trace_), peak(backend))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", nargs="+", choices=CASES, default=["rows", "atoms", "columns"])
    parser.add_argument("--device", default="numpy")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--whole", action="store_true",
                        help="SAEManifold on rows in a file: fit, codes, V")
    parser.add_argument("--most", type=int, help="sweeps over all rows at most, with --whole")
    parser.add_argument("--against", action="store_true", help="compare sums with numpy's")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; "
          f"numpy {np.__version__}; {options.device}")
    print("device     K        N    p seed  sweep s  again s   rows/s    fit s samples  fit CPU "
          "sweeps       MB     nats a row explained accuracy  atoms")
    for name in options.cases:
        for seed in range(options.seeds):
            if not options.whole:
                for case in CASES[name]:
                    measure(case, options.device, seed, options.against)
                continue
            found = [measure_whole(case, options.device, seed, options.most)
                     for case in CASES[name]]
            if name in SIZE:
                show_slopes(name, CASES[name], found)


if __name__ == "__main__":
    main()
