"""What each check asks the reader to do; `docs/diagnostics.md` says the same."""

from __future__ import annotations

from reml_sae.diagnostics.check import Check

ADVICE = {
    "outer convergence": "Raise max_outer or max_time, or more starts by n_init. Until it passes, "
    "do not compare this V with others.",
    "inner convergence": "The decoders have no minimum at these strengths: an atom is not "
    "identified. Fit fewer atoms, or other shapes.",
    "strengths at a limit": "Nothing to do: a term whose strength is infinite is straight or "
    "absent, one at zero is free. Read which.",
    "occupancy": "Fit fewer atoms, or n_atoms='auto': no row needs this one.",
    "coverage": "Rows use part of the shape only. Try an interval in place of a circle, and do not "
    "read distances across the gap.",
    "tangent": "The coordinate stands still somewhere on the atom. Do not read the order of rows "
    "there; try a simpler shape or fewer basis functions.",
    "places": "The atom comes back to where it was: a circle that winds twice, a surface that is "
    "folded or goes through itself. The coordinates of these rows are not known; try a simpler "
    "shape, more rows or a larger n_init.",
    "coordinates": "Rows are placed no better than this, and neighbours may be wrong alike. Read "
    "no smaller distances; more rows tell the decoder.",
    "rows between atoms": "Atoms come close to each other in this noise. Which of them a single "
    "row is on is known that well only; shares of many rows are better known.",
    "duplicate atoms": "Two atoms share a place and a plane. Look at both cards; fit one atom "
    "fewer and compare V.",
    "row integrals": "Laplace's method is off by this much a row, and V with it. Compare fits "
    "only where V differs by more, or set integration='quadrature'.",
    "coordinates left out": "Rows have shares of an atom that they are not placed on, and pay too "
    "little or too much for them. Do not compare this V with others, nor read small shares; with "
    "one atom a row set assignment='topk'.",
    "rows of extreme norm": "Look at the rows named. Drop or rescale them, or set "
    "row_noise='student_t'.",
    "noise": "Follow the message: fit again with the noise that it names before you trust V.",
    "rows not described": "Look at the rows named: errors, or a feature without an atom. Then "
    "drop them, or fit more atoms if they have something in common.",
    "search among atoms": "Other tries ended elsewhere, at less likely answers, and one more may "
    "end at a likelier one. Raise n_init above the number of tries, until two agree, and compare "
    "V over values of random_state.",
    "atoms against none": "The atoms explain nothing that the rows' mean and noise do not. "
    "Do not interpret them; a flat atom says what a direction of the noise says.",
    "against its flat": "The curve is not needed: read the atom as a direction, or set "
    "demote=True.",
}
"""By the end of the check's name, which the name of an atom may precede."""


def advice(check: Check) -> str:
    """What a check asks of the reader where it does not pass; empty of an unknown one."""
    return next((text for name, text in ADVICE.items() if check.name.endswith(name)), "")
