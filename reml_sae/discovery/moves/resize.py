"""How many basis functions an atom has, where that is left to V.

Wide bases start from narrow ones: their coordinates mean the same, so that the rows keep theirs,
and the decoder is solved for anew at them, in the metric of the noise that it then leaves. What V
would be at these codes (`discovery.sizes`) costs next to nothing, and tells which bases are worth a
fit. The way up can lead to a local minimum, a loop that closes early: bases that have become wider
are started anew as well.

An atom whose chart is that of its simplest shape makes no use of the rough functions that it has.
More of them are tried only where they are predicted to lower V by the margin of evidence, and such
a chart has nothing for new starts to undo.

The number is bounded by the rows that use the atom, of which every function needs
``rows_per_function``.
"""

from __future__ import annotations

from collections.abc import Iterator

from reml_sae.discovery.alone import rise_alone
from reml_sae.discovery.first_fit import fit_starts
from reml_sae.discovery.fitting import (
    Fitted,
    Settings,
    model_from_codes,
    model_in_own_noise,
    rough_fit,
)
from reml_sae.discovery.follow_noise import turn_noise
from reml_sae.discovery.moves.protocol import Context, Proposal, Proposals
from reml_sae.discovery.moves.restart import is_rough
from reml_sae.discovery.sizes import predicted_criteria, ways_gained
from reml_sae.discovery.strengths import known_without
from reml_sae.manifolds import Manifold


class Resize:
    """Another basis takes the place of an atom's, again and again while V falls.

    The smallest for which V is predicted to be nearly the lowest is tried first. Predictions at the
    codes of a wide basis are unfair to narrower ones, so once V has fallen the next smaller ones
    are tried too. Last come starts of their own with the bases that were chosen, where one is wider
    than before.
    """

    kind = "resize"
    names_only = False

    def applies(self, fitted: Fitted, context: Context) -> bool:
        """Where the number of an atom is open."""
        return any(context.structure.chooses_size(k) for k in range(len(fitted.model.atoms)))

    def propose(self, fitted: Fitted, context: Context) -> Proposals:
        """Bases of every atom that is open."""
        begun = fitted.model.atoms
        for k in range(len(fitted.model.atoms)):
            if not context.structure.chooses_size(k):
                continue
            judged = [fitted.model.atoms[k]]
            while (basis := _promising(fitted, k, judged, context.settings)) is not None:
                judged.append(basis)
                before, fitted = fitted, (yield _resized(fitted, k, basis, context.settings))
                if fitted is before:
                    break
            while (basis := _next_smaller(fitted, k, judged)) is not None:
                judged.append(basis)
                fitted = yield _resized(fitted, k, basis, context.settings)
        wider = [k for k, (own, first) in enumerate(zip(fitted.model.atoms, begun, strict=True))
                 if own.basis_size > first.basis_size
                 and is_rough(fitted, k, context.settings.policy)]
        if wider:
            yield _begun_anew(fitted, wider[0], context)


def _promising(
    fitted: Fitted, k: int, judged: list[Manifold], settings: Settings
) -> Manifold | None:
    """The smallest basis whose predicted V is nearly the lowest of those worth a fit, if any is.

    Codes that move with the decoder lower V further than predicted, so a wider one may even be
    predicted to raise it a little, unless the chart is that of the simplest shape: then it must be
    predicted to fall by the margin. Where V is predicted to stay the same, the strength of the
    roughness shuts out what the bases differ in. An atom unlike the others has fewer permutations,
    for which a basis must make up.
    """
    policy, present = settings.policy.move, fitted.model.atoms[k]
    most = int(fitted.model.active[:, k].sum()) // policy.rows_per_function
    near = [basis for basis in _around(present, policy.sizes_ahead)
            if basis not in judged and basis.basis_size <= max(most, present.basis_size)]
    if not near:
        return None
    own, *values = predicted_criteria(fitted, k, [present, *near], settings)
    (low, high), gain, worth = policy.resize_slack, policy.resize_gain, []
    rough = is_rough(fitted, k, settings.policy)
    for value, basis in zip(values, near, strict=True):
        rise = value - own
        whole = rise + max(-ways_gained(fitted.model, k, basis), 0.0)
        wider = basis.basis_size > present.basis_size
        if wider and not rough:
            hopeful = whole < -policy.margin
        else:
            hopeful = whole < -gain or (wider and not -gain <= rise <= low and whole < high)
        if hopeful:
            worth.append((rise, basis))
    best = min((rise for rise, _ in worth), default=0.0)
    return min((basis for rise, basis in worth if rise <= best + low),
               key=lambda basis: basis.basis_size, default=None)


def _around(atom: Manifold, ahead: int) -> Iterator[Manifold]:
    """The same manifold with so many smaller and larger bases."""
    for steps in (*range(-ahead, 0), *range(1, ahead + 1)):
        basis = atom.resized(steps)
        if basis is not None:
            yield basis


def _next_smaller(fitted: Fitted, k: int, judged: list[Manifold]) -> Manifold | None:
    """The next smaller basis, where the search has left the first one; None where it is judged."""
    present = fitted.model.atoms[k]
    smaller = present.resized(-1)
    return None if present == judged[0] or smaller in judged else smaller


def _resized(fitted: Fitted, k: int, basis: Manifold, settings: Settings) -> Proposal:
    """The model with another basis for atom k, in its own noise or the present one."""
    atoms = [basis if j == k else atom for j, atom in enumerate(fitted.model.atoms)]

    def fit(settings: Settings) -> Fitted | None:
        codes, known = fitted.codes, known_without(fitted, k)
        models = [model_in_own_noise(fitted.rows, atoms, settings, codes, known)]
        if {models[0].noise.kind, fitted.rows.noise.kind} != {"isotropic"}:
            models.append(model_from_codes(fitted.rows, atoms, settings, codes, known))
        found = [turn_noise(trial, settings) for model in models
                 if (trial := rough_fit(model, settings, basis.label)) is not None]
        return min(found, key=lambda trial: trial.result.criterion, default=None)

    t = fitted.result.theta.xi[fitted.model.active[:, k], fitted.model.coordinate_columns(k)]
    return Proposal(k, f"{fitted.model.atoms[k].label} -> {basis.label}",
                    -settings.policy.move.resize_gain, fit,
                    rise_alone=lambda settings: rise_alone(fitted, k, basis, t, settings))


def _begun_anew(fitted: Fitted, k: int, context: Context) -> Proposal:
    """The present model from starts of its own; atom k is one whose basis has become wider."""
    atoms, limit = fitted.model.atoms, -context.settings.policy.move.restart_gain
    return Proposal(k, f"{atoms[k].label} from new starts", limit,
                    lambda settings: fit_starts(fitted.rows, atoms, settings, context.rng))
