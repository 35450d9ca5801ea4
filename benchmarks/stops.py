"""Stopped at random moments: what is lost by SIGKILL and by Ctrl-C, of fits, sweeps and files.

kills: a process that fits with a checkpoint is killed again and again, each time after a random part
of what the whole fit takes, until one ends: whether it has the bits of the fit that was left alone,
and how many REML fits (or sweeps) were made twice. One that saves two fits in turn is killed within:
whether the file is one of the two.

interrupts: SIGINT within a fit, a sweep, save, encode, report. *best state*: the fit ended with what
it had, not converged; *raised*: KeyboardInterrupt came out, and what the estimator, or the file,
held before is there; *complete*; *LOST* is what must not be.

    python benchmarks/stops.py --times 20 > benchmarks/results/stops.txt
"""

import argparse
import contextlib
import os
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import reml_sae as rs
from reml_sae.datasets import planted_circles
from reml_sae.errors import ArtifactError, InputError
from reml_sae.manifolds import Circle

SWEEPS = {"n_atoms": 6, "topology": Circle(1), "assignment": "topk", "solver": "sweeps"}
FITS = {
    "2 circles": (planted_circles(90, 6, 2).Z, {"n_atoms": 2, "n_init": 2}),
    "2 circles, topk": (planted_circles(90, 6, 2).Z, {"n_atoms": 2, "n_init": 2,
                                                      "assignment": "topk"}),
    "number open": (planted_circles(60, 5, 1).Z, {"n_atoms": "auto", "n_init": 2}),
    "6 circles, sweeps": (planted_circles(900, 12, 6, n_active=1, noise_sd=0.1).Z, SWEEPS),
}
PART = 0.6
"""Of the time of a whole fit, within which it is killed."""


def fitted(data, options, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(**options, **more).fit(data)


def bits(model):
    """All that a fit says of its rows."""
    codes = model.codes_
    arrays = (model.rho_, codes.assignments, *(atom.coefficients for atom in model.atoms_))
    return (model.criterion_, model.message_, *(np.asarray(value).tobytes() for value in arrays))


def in_child(act):
    """Process id of a child that does this and ends."""
    child = os.fork()
    if not child:
        status = 1
        try:
            with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
                act()
            status = 0
        finally:
            os._exit(status)
    return child


def killed(act, delay):
    """Whether what began so many seconds ago had to be killed."""
    child, end = in_child(act), time.monotonic() + delay
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def show_kills(times, rng):
    print(f"{'SIGKILL within':<22}{'s':>6}{'kills':>7}{'fits':>6}{'same bits':>11}{'other':>7}"
          f"{'file whole':>12}{'lost':>6}")
    for name, (data, options) in FITS.items():
        begun = time.perf_counter()
        whole = bits(fitted(data, options))
        seconds = time.perf_counter() - begun
        kills, ends = 0, Counter()
        while kills < times:
            with tempfile.TemporaryDirectory() as folder:
                kept, result = Path(folder) / "kept", Path(folder) / "fit.safetensors"

                def act(data=data, options=options, kept=kept, result=result):
                    fitted(data, options, checkpoint=kept).save(result)

                while killed(act, rng.uniform(0.0, PART * seconds)):
                    kills += 1
                ends[result.is_file() and bits(rs.load(result)) == whole] += 1
        print(f"{name:<22}{seconds:6.1f}{kills:7d}{ends.total():6d}{ends[True]:11d}"
              f"{ends[False]:7d}{'':>12}{'':>6}", flush=True)
    show_kills_of_saves(times, rng)


def show_kills_of_saves(times, rng):
    """Two fits saved in turn, over one file."""
    models = [fitted(planted_circles(60, 5, 1, random_state=seed).Z, {"n_atoms": 1, "n_init": 1})
              for seed in range(2)]
    known, whole = {bits(model) for model in models}, 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.safetensors"
        models[0].save(path)

        def act():
            while True:
                for model in models:
                    model.save(path)

        for _ in range(times):
            killed(act, rng.uniform(0.0, 0.3))
            with contextlib.suppress(ArtifactError, InputError):
                whole += bits(rs.load(path)) in known
        models[0].save(path)
        remains = sum(item != path for item in Path(folder).iterdir())
    print(f"{'save':<22}{0.3:6.1f}{times:7d}{'':>6}{'':>11}{'':>7}{whole:12d}{times - whole:6d}"
          f"   ({remains} remains after the next save)", flush=True)


def interrupted(act, delay):
    """Whether KeyboardInterrupt came out of what was interrupted; None where it ended before."""
    clock = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    begun = time.perf_counter()
    clock.start()
    raised = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act()
            if time.perf_counter() - begun < delay:
                clock.cancel()
                raised = None
    except KeyboardInterrupt:
        raised = True
    try:
        clock.join()
    except KeyboardInterrupt:
        raised = None
    return raised


def of_a_fit(model, data, delay):
    before = {name: value for name, value in vars(model).items() if name.endswith("_")}
    raised = interrupted(lambda: model.fit(data), delay)
    if raised is None:
        return "ended before"
    if raised:
        same = all(getattr(model, name) is value for name, value in before.items())
        return "raised, fit as before" if same else "LOST"
    if "interrupted" in model.message_:
        usable = np.isfinite(model.predict(data)).all() and not model.converged_
        return "best state" if usable else "LOST"
    return "complete"


def show_interrupts(times, rng):
    print(f"\n{'SIGINT within':<22}{'s':>6}  outcomes")
    for name, (data, options) in FITS.items():
        model = rs.SAEManifold(**options)
        begun = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(data)
        seconds = time.perf_counter() - begun
        show(name, seconds, [of_a_fit(model, data, rng.uniform(0.0, seconds))
                             for _ in range(times)])
    with tempfile.TemporaryDirectory() as folder:
        data = planted_circles(400, 6, 1).Z
        model, path = fitted(data, {"n_atoms": 1, "n_init": 1}), Path(folder) / "fit.safetensors"
        known = bits(model)
        for name, act in {"save": lambda: model.save(path), "encode": lambda: model.encode(data + 1e-3),
                          "report": lambda: model.report(Path(folder) / "report.html", data)}.items():
            act()
            begun = time.perf_counter()
            act()
            seconds = time.perf_counter() - begun
            outcomes = []
            for _ in range(times):
                raised = interrupted(act, rng.uniform(0.0, seconds))
                kept = bits(model) == known and bits(rs.load(path)) == known
                outcomes.append("LOST" if not kept else "ended before" if raised is None
                                else "raised, fit and file as before" if raised else "complete")
            show(name, seconds, outcomes)


def show(name, seconds, outcomes):
    tally = Counter(outcomes).most_common()
    print(f"{name:<22}{seconds:6.2f}  {', '.join(f'{n} {outcome}' for outcome, n in tally)}",
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="kills and interrupts of each kind")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    show_kills(options.times, rng)
    show_interrupts(options.times, rng)


if __name__ == "__main__":
    main()
