"""`Outer`: what rho consists of, and the same for every kind of model."""

import numpy as np
import pytest

from reml_sae.engine import Outer, OuterKey, OuterPart
from reml_sae.errors import InputError
from reml_sae.manifolds import Circle
from tests.models.sae.systems import build


def part(kind, n, quadratic=True, **own):
    names = tuple(f"{kind}{j}" for j in range(n))
    return OuterPart(kind, names, np.tile([-1.0, 1.0], (n, 1)), np.full(n, quadratic), **own)


def outer(quadratic_family=True):
    return Outer((part("a", 2, atom=3), part("none", 0), part("b", 1, False, target="decoder")),
                 part("family", 1, quadratic_family))


def test_parts_stand_in_order_and_the_family_is_last():
    found = outer()
    assert found.names == ("a0", "a1", "b0", "family0") and len(found) == 4
    assert found.slices == (slice(0, 2), slice(2, 2), slice(2, 3)) and found.psi == slice(3, 4)
    assert (found["a"], found["none"], found["b"]) == found.slices
    np.testing.assert_array_equal(found.quadratic, [True, True, False, True])
    assert found.bounds.shape == (4, 2)
    assert (found.dispersion, outer(False).dispersion) == (3, None)
    with pytest.raises(InputError, match="'c' is no outer parameter; there are a0, a1"):
        found.place("c")
    assert found.place("b0") == 2


def test_values_go_from_one_model_to_another_by_key():
    rho = np.arange(4.0)
    assert outer().named(rho) == {"a0": 0.0, "a1": 1.0, "b0": 2.0, "family0": 3.0}
    known = outer().keyed(rho)
    assert known[OuterKey("a", atom=3, index=1)] == 1.0
    other = Outer((part("a", 1, atom=3), part("a", 1, atom=4), part("b", 1, target="decoder")),
                  part("family", 1))
    np.testing.assert_array_equal(other.filled(np.full(4, 9.0), known), [0.0, 9.0, 2.0, 3.0])
    np.testing.assert_array_equal(outer().clip(np.array([-2.0, 0.5, 2.0, 1.0])),
                                  [-1.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("assignment", ["softmax", "topk"])
def test_terms_have_the_slices_of_their_parts(assignment):
    model = build([Circle(2), Circle(1)], assignment=assignment)
    whole = model.outer
    assert [term.where for term in model.terms] == list(whole.slices)
    assert [term.names for term in model.terms] == [part.names for part in whole.parts]
    assert whole.names[whole.psi] == model.family.psi_names
    assert len(set(whole.keys)) == len(whole) == len(model.initial_rho())
    kept, rho = model.uncoupled(model.initial_rho())
    assert kept.outer.names == whole.names and len(rho) == len(whole)
