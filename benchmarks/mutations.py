"""Files that were changed, under every reader: 20,000 mutations, and what comes of them.

Half are of bytes, half of what a file says under a checksum that agrees (`tests/faults/mutations`).
A file is read and used as its users do.

- same: read and used; refused: an error of this package that says what is wrong.
- foreign: another exception, or a warning of arithmetic; not finite: figures that are not.
- hang: CPU seconds beyond 10; memory: more than 1 GB; dead: the process was killed.

    PYTHONPATH=. python benchmarks/mutations.py --mutations 1112 > benchmarks/results/mutations.txt
"""

import argparse
import os
import pickle
import resource
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas  # noqa: F401  (not in the child: it is large)

from reml_sae.errors import ConvergenceWarning, DataWarning, RemlSaeError
from tests.faults.mutations import mutated
from tests.faults.readers import READERS

SECONDS, GIGABYTE = 10.0, 2**30
PROMISED = ("same", "refused")


class Hang(BaseException):
    """It took too long."""


def outcome(reader, path):
    """What comes of a file, and the first words of why."""
    def stop(*_):
        raise Hang

    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", DataWarning)
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            used = reader.use(path)
        bad = any(not np.isfinite(value).all() for value in used)
        return ("not finite", "") if bad else ("same", "")
    except RemlSaeError as error:
        return "refused", str(error)
    except Hang:
        return "hang", place()
    except MemoryError:
        return "memory", place()
    except (Exception, Warning) as error:
        return "foreign", f"{type(error).__name__}: {error} ({place()})"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)


def place():
    """Where in the package the last exception came from."""
    frames = [line for line in traceback.format_exc().splitlines() if "reml_sae/" in line]
    return frames[-1].strip().split("reml_sae/")[-1] if frames else "?"


def used_now():
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def work(reader, good, seeds, pipe):
    """Outcomes of seeds, sent one after the other."""
    resource.setrlimit(resource.RLIMIT_DATA, (used_now() + GIGABYTE,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(pipe, "wb") as out:
        for seed in seeds:
            found = outcome(reader, mutated(reader, good, seed))
            pickle.dump((seed, *found), out)
            out.flush()


def outcomes(reader, good, seeds):
    """Outcomes of all seeds; a process that dies is followed by another."""
    seeds = list(seeds)
    while seeds:
        inward, outward = os.pipe()
        child = os.fork()
        if not child:
            os.close(inward)
            try:
                work(reader, good, seeds, outward)
            finally:
                os._exit(0)
        os.close(outward)
        with os.fdopen(inward, "rb") as source:
            try:
                while True:
                    seed, *found = pickle.load(source)
                    seeds.remove(seed)
                    yield seed, *found
            except EOFError:
                pass
        os.waitpid(child, 0)
        if seeds:
            yield seeds.pop(0), "dead", "the process was killed"


def main():
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # others reserve more than they use
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutations", type=int, default=100, help="of each reader")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--only", default="", help="readers whose name holds this text")
    options = parser.parse_args()
    kinds = ["same", "refused", "foreign", "not finite", "hang", "memory", "dead"]
    print(f"{'file':<22}" + "".join(f"{kind:>11}" for kind in kinds), flush=True)
    total, bad = Counter(), []
    for name, reader in READERS.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            good = Path(folder) / "good" / reader.name
            good.parent.mkdir()
            reader.write(good)
            tally = Counter()
            seeds = range(options.first, options.first + options.mutations)
            for seed, kind, why in outcomes(reader, good, seeds):
                tally[kind] += 1
                if kind not in PROMISED:
                    bad.append(f"{name}, seed {seed}: {kind} {why[:200]}")
        total += tally
        print(f"{name:<22}" + "".join(f"{tally[kind]:11d}" for kind in kinds), flush=True)
    print(f"{'all':<22}" + "".join(f"{total[kind]:11d}" for kind in kinds))
    print(*bad, sep="\n")


if __name__ == "__main__":
    main()
