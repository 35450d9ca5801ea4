"""Stopped at random moments: what is lost by a kill and by Ctrl-C, of fits, sweeps and files.

kills: a process that fits with a checkpoint is ended by the kernel four times, each time after a
random part of the CPU time of the whole fit, and then left alone: whether the fit that it saves has
the bits of one that never was ended. One that saves two fits in turn over one file is ended within:
whether the file is one of the two, and what else is left after the next save.

interrupts: SIGINT within a fit, a sweep, save, encode, report. *best state*: the fit ended with
what it had, usable, not converged; *raised*: KeyboardInterrupt came out, and what the estimator and
the file held before is there; *complete*; *LOST* is what must not be.

    python benchmarks/stops.py --times 20 > benchmarks/results/stops.txt
"""

import argparse
import contextlib
import os
import signal
import tempfile
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
    "number open": (planted_circles(40, 4, 1).Z, {"n_atoms": "auto", "n_init": 1}),
    "6 circles, sweeps": (planted_circles(900, 12, 6, n_active=1, noise_sd=0.1).Z, SWEEPS),
}
SAVES = 100
"""Times that a fit is saved, of which one is interrupted."""
AGAIN = 4
"""Times that a fit is killed before it is left alone."""
SAVING = 0.3
"""CPU seconds within which what saves is killed."""


def fitted(data, options, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rs.SAEManifold(**options, **more).fit(data)


def bits(model):
    """All that a fit says of its rows."""
    codes = model.codes_
    arrays = (model.rho_, codes.assignments, *(atom.coefficients for atom in model.atoms_))
    return (model.criterion_, model.message_, *(np.asarray(value).tobytes() for value in arrays))


def cpu_seconds(act):
    begun = time.process_time()
    act()
    return time.process_time() - begun


def killed(act, delay):
    """Whether a child that does this is ended after so many CPU seconds; 0 leaves it alone."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends it, as SIGKILL does
            signal.setitimer(signal.ITIMER_PROF, delay)
            act()
            status = 0
        finally:
            os._exit(status)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def show_kills(times, rng):
    print(f"{'killed within':<20}{'cpu s':>7}{'kills':>7}{'ended':>7}{'same bits':>11}{'LOST':>6}")
    for name, (data, options) in FITS.items():
        found = []
        seconds = cpu_seconds(lambda: found.append(bits(fitted(*FITS[name]))))  # noqa: B023
        kills, ends = 0, Counter()
        while kills < times:
            with tempfile.TemporaryDirectory() as folder:
                kept, result = Path(folder) / "kept", Path(folder) / "fit.safetensors"

                def act(data=data, options=options, kept=kept, result=result):
                    fitted(data, options, checkpoint=kept).save(result)

                kills += sum(killed(act, rng.uniform(0.0, seconds)) for _ in range(AGAIN))
                killed(act, 0.0)
                ends[result.is_file() and bits(rs.load(result)) == found[0]] += 1
        print(f"{name:<20}{seconds:7.1f}{kills:7d}{ends.total():7d}{ends[True]:11d}"
              f"{ends[False]:6d}", flush=True)
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
            killed(act, rng.uniform(0.0, SAVING))
            with contextlib.suppress(ArtifactError, InputError):
                whole += bits(rs.load(path)) in known
        models[0].save(path)
        remains = sum(item != path for item in Path(folder).iterdir())
    print(f"{'save':<20}{SAVING:7.1f}{times:7d}{'':>7}{whole:11d}{times - whole:6d}"
          f"  ({remains} other files after the next save)", flush=True)


def interrupted(act, delay):
    """Whether KeyboardInterrupt came out of what was interrupted; None where it ended before."""
    signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal.setitimer(signal.ITIMER_PROF, delay)
            act()
            return None if signal.setitimer(signal.ITIMER_PROF, 0.0)[0] else False
    except KeyboardInterrupt:
        return True


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
    print(f"\n{'SIGINT within':<20}{'cpu s':>7}  outcomes")
    for name, (data, options) in FITS.items():
        model = rs.SAEManifold(**options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds = cpu_seconds(lambda: model.fit(data))  # noqa: B023
        show(name, seconds, [of_a_fit(model, data, rng.uniform(0.0, seconds))
                             for _ in range(times)])
    with tempfile.TemporaryDirectory() as folder:
        data, path = planted_circles(2000, 6, 1).Z, Path(folder) / "fit.safetensors"
        model = fitted(data, {"n_atoms": 1, "n_init": 1, "noise": "isotropic"})
        other, known = data + 1e-3, bits(model)
        model.save(path)
        acts = {"save": lambda: [model.save(path) for _ in range(SAVES)],
                "encode": lambda: model.encode(other),
                "report": lambda: model.report(Path(folder) / "report.html", data)}
        for name, act in acts.items():
            seconds = max(cpu_seconds(act) for _ in range(2))
            show(name, seconds, [of_a_file(act, rng.uniform(0.0, seconds), model, path, known)
                                 for _ in range(times)])


def of_a_file(act, delay, model, path, known):
    raised = interrupted(act, delay)
    if bits(model) != known or bits(rs.load(path)) != known:
        return "LOST"
    return ("ended before" if raised is None
            else "raised, fit and file as before" if raised else "complete")


def show(name, seconds, outcomes):
    tally = Counter(outcomes).most_common()
    print(f"{name:<20}{seconds:7.2f}  {', '.join(f'{n} {outcome}' for outcome, n in tally)}",
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="kills and interrupts of each kind")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells may have it ignored
    rng = np.random.default_rng(0)
    show_kills(options.times, rng)
    show_interrupts(options.times, rng)


if __name__ == "__main__":
    main()
