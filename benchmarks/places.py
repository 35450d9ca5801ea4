"""How often does the check *places* doubt a fit that is right?

One circle, ellipse, arc, sphere or cylinder, every sixth beside a line, a plane or another of them,
in 60 to 300 rows and 3 to 10 columns, with noise up to the limit of the oracle of
`planted_problems.py`, by whose rule a fit is right. One start each, in isotropic noise. The
check's figure is the share of the rows of an atom, or of rows drawn from it, whose posterior has
more than .1 farther than 1 radian or standard deviation from its peak.

    python benchmarks/places.py --fits 0 150 > benchmarks/results/places.txt
"""

import argparse
import warnings
from collections import Counter
from itertools import chain

import numpy as np
from planted_problems import SHAPES, asked, is_within, within_limit

import reml_sae as rs
from reml_sae.datasets import recovery_scores

CURVED = ("circle", "ellipse", "interval", "sphere", "cylinder")
BESIDE = ("linear", "plane", "circle", "interval")
SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)


def plant(number):
    """A curved atom, every sixth time beside another one."""
    rng = np.random.default_rng([number, 17])
    names = [CURVED[number % len(CURVED)]]
    names += [str(rng.choice(BESIDE))] if number % 6 == 5 else []
    p = int(rng.integers(max(SHAPES[name].width for name in names) + 1, 11))
    n = int(rng.integers(60, 301))
    return within_limit(number, names, n, p, float(rng.uniform(0.05, 0.5)),
                        {"offset": float(rng.choice([0.0, 1.0, 2.0])), "random_state": number})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fits", nargs=2, type=int, default=(0, 150), metavar=("FIRST", "END"))
    found, verdicts = {name: [] for name in CURVED}, Counter()
    print(f"{'no':>4} {'planted':<20} {'N':>4} {'p':>3} {'sd':>5}  right  places of its atoms")
    for number in range(*parser.parse_args().fits):
        made, _, ideal = plant(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = rs.SAEManifold(**asked(made, "topk"), n_init=1, noise="isotropic").fit(made.Z)
        scores = recovery_scores(made, model.codes_, [atom.topology for atom in model.atoms_])
        right = is_within(scores, ideal.assignment_accuracy, ideal.coordinate_error,
                          len(made.Z))
        checks = {check.name: check for check in model.diagnostics_.checks}
        own = [checks.get(f"atom {k} places") for k in scores.matching]
        verdicts["right" if right else "not right"] += 1
        for name, check in zip(made.topologies, own, strict=True):
            if right and check is not None:
                found[name].append(check.figure)
        print(f"{number:4d} {'+'.join(made.topologies):<20} {len(made.Z):4d} {made.Z.shape[1]:3d} "
              f"{made.noise_sd:5.2f}  {'yes' if right else 'NO':<5}  "
              + " ".join("   -" if check is None else f"{check.figure:.3f} {check.status}"
                         for check in own), flush=True)
    print(f"\n{dict(verdicts)}\n\nright fits, share of atoms with a figure above\n"
          f"{'planted':<10}{'atoms':>6}" + "".join(f"{share:>8g}" for share in SHARES)
          + f"{'highest':>9}")
    for name, values in [*found.items(), ("all", [*chain(*found.values())])]:
        shares = np.array(values)
        print(f"{name:<10}{len(shares):6d}"
              + "".join(f"{(shares > share).mean():8.3f}" for share in SHARES)
              + f"{shares.max():9.3f}")


if __name__ == "__main__":
    main()
