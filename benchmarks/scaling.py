"""Seconds and peak memory of a fit as N grows, and of one factorisation with its inverse."""

import argparse
import time
import tracemalloc

import reml_sae as rs
from reml_sae.datasets import planted_circles


def peak(function):
    tracemalloc.start()
    result = function()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, found / 2**20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--atoms", type=int, default=2)
    parser.add_argument("--columns", type=int, default=32)
    options = parser.parse_args()
    k, p = options.atoms, options.columns
    print(f"K = {k} circles, p = {p}")
    print("      N  fit [s]  outer  factor [s]  selected inverse [s]  peak [MiB]  N p doubles")
    for n in (500, 1000, 2000, 4000, 8000):
        data = planted_circles(n, p, k, noise_sd=0.05)
        begun = time.perf_counter()
        model = rs.SAEManifold(n_atoms=k).fit(data.Z)
        seconds = time.perf_counter() - begun
        arrow = model.build_model(data.Z)

        def once(arrow=arrow, model=model):
            return arrow.at(arrow.initial_theta(), model.rho_).factorize().selected_inverse()

        point = arrow.at(arrow.initial_theta(), model.rho_)
        begun = time.perf_counter()
        factor = point.factorize()
        middle = time.perf_counter()
        factor.selected_inverse()
        end = time.perf_counter()
        memory = peak(once)[1]
        print(f"{n:7d} {seconds:8.2f} {model.n_iter_:6d} {middle - begun:11.4f} "
              f"{end - middle:21.4f} {memory:11.1f} {memory * 2**20 / (8 * n * p):12.1f}",
              flush=True)


if __name__ == "__main__":
    main()
