"""The one judge of changed models: each is fitted, and V decides.

A change starts from the fitted strengths and is fitted roughly, with noise of its own; where V is
then above what would be accepted, but not hopelessly, it is fitted on by REML. Where rows use one
atom each, a change of one atom that V does not accept on the atom's own rows is not fitted at all
(`alone.rise_alone`).

Contract. The model given in is never changed. A change that leads to no usable state, or that the
penalties or the assignment do not allow (a penalty for a fixed number of atoms), is recorded as not
accepted. An interrupt keeps the state before the change, marked so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from reml_sae.discovery.fitting import Fitted, Settings, rough_fit, stopped
from reml_sae.discovery.follow_noise import turn_noise
from reml_sae.discovery.moves.protocol import Context, Move, Proposal
from reml_sae.discovery.settle import settle
from reml_sae.engine import reason
from reml_sae.errors import InnerConvergenceError, InputError


@dataclass(frozen=True)
class MoveRecord:
    """One change that was tried.

    Attributes
    ----------
    kind : str
        "restart", "demote", "flat twin", "no atom", "one flat", "reshape", "regroup", "resize",
        "reorder", "merge" or "remove".
    atom : int
        Number of the atom in the model that was changed.
    before, after : float
        V in nats; ``after`` is nan where no usable state was reached.
    accepted : bool
    detail : str
    """

    kind: str
    atom: int
    before: float
    after: float
    accepted: bool
    detail: str


def try_move(move: Move, fitted: Fitted, context: Context) -> tuple[Fitted, list[MoveRecord]]:
    """Try all that a move proposes, each on the model that those before it have left.

    Returns
    -------
    fitted : Fitted
        Rough where anything was accepted, for the caller to fit on; else as it was given.
    records : list of MoveRecord
    """
    records: list[MoveRecord] = []
    present = _as_judged(fitted, context.settings)
    proposals = move.propose(present, context)
    try:
        proposal = None if present.result.interrupted else next(proposals, None)
        while proposal is not None:
            trial, record = judge(present, proposal, move.kind, context.settings)
            if not move.names_only:
                records.append(record)
            elif record.accepted:
                records.append(replace(record, accepted=False))
            if trial.result.interrupted or not move.names_only:
                present = trial
            proposal = None if present.result.interrupted else proposals.send(present)
    except StopIteration:
        pass
    except KeyboardInterrupt as stop:
        present = stopped(present, reason(stop))
    if any(record.accepted for record in records):
        return present, records
    if present.result.interrupted:
        return stopped(fitted, present.result.status), records
    return fitted, records


def judge(
    fitted: Fitted, proposal: Proposal, kind: str, settings: Settings
) -> tuple[Fitted, MoveRecord]:
    """The changed model where V rises by less than its limit, else the model as it was."""
    own, before = _judging(settings), fitted.result.criterion
    record = MoveRecord(kind, proposal.atom, before, np.nan, False, proposal.detail)
    try:
        rise = proposal.rise_alone(own)
        if rise is not None and rise >= proposal.limit:
            return fitted, replace(record, after=before + rise)
        trial = proposal.fit(own)
    except InputError as error:
        return fitted, replace(record, detail=f"{record.detail}: not allowed, {error}")
    except InnerConvergenceError:
        trial = None
    if trial is None:
        return fitted, replace(record, detail=f"{record.detail}: no usable state")
    within = settings.policy.move.within_per_row * len(fitted.model.active)
    trial = turn_noise(trial, own, before + proposal.limit + within)
    if (0.0 <= trial.result.criterion - before - proposal.limit < within
            and not trial.result.interrupted and not proposal.has_returned(trial)):
        final = settle(trial, own)
        if final.result.criterion < trial.result.criterion or final.result.interrupted:
            trial = final
    if trial.result.interrupted:
        return stopped(fitted, trial.result.status), record
    after = trial.result.criterion
    accepted = after - before < proposal.limit
    return (trial if accepted else fitted), replace(record, after=after, accepted=accepted)


def _judging(settings: Settings) -> Settings:
    """Settings of the fits by which a change is judged: the majorizer, no callbacks, few steps."""
    return replace(settings, curvature="majorizer", callbacks=(),
                   max_outer=min(settings.max_outer, settings.policy.move.most_outer))


def _as_judged(fitted: Fitted, settings: Settings) -> Fitted:
    """The model with V as moves are judged by: of the majorizer, without callbacks."""
    if settings.curvature == "majorizer":
        return fitted
    theta, rho = fitted.result.theta, fitted.result.rho
    again = rough_fit(fitted.model.with_state(theta, rho), replace(settings, callbacks=()),
                      "present model")
    if again is None:
        return fitted
    return stopped(fitted, again.result.status) if again.result.interrupted else again
