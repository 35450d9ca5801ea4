"""Stand-in for `sksparse.cholmod` of scikit-sparse 0.5: the part of its interface that we use.

Names, argument names and behaviour follow the 0.5.0 sources; the arithmetic is dense. It is there
because 0.5 does not build on every system that these tests run on.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
from scipy import sparse


class CholmodError(Exception):
    pass


class CholmodNotPositiveDefiniteError(CholmodError):
    pass


class CholmodNotInstalledError(CholmodError):
    pass


class CholeskyFactor:
    """Symbolic at first; `factorize` makes it numeric, in place, and returns it."""

    def __init__(self, A, *, lower=True, order="default", sym_kind=None, supernodal_mode=None):
        assert sparse.issparse(A) and A.format == "csc", "another format warns"
        assert order in {None, "default", "best", "natural", "metis", "nesdis", "amd", "colamd",
                         "postordered"}
        if order == "metis":
            raise CholmodNotInstalledError("built without METIS")
        if A.shape[0] > 0 and A.nnz == 0:
            raise CholmodNotPositiveDefiniteError("Input matrix not positive definite.")
        self.is_lower = lower
        # as in real factors, not its own inverse: a rotation
        self.perm = np.roll(np.arange(A.shape[0], dtype=np.int32), 1)
        self.perm.setflags(write=False)
        self.factor = None

    def copy(self):
        twin = object.__new__(CholeskyFactor)
        twin.__dict__.update(self.__dict__)
        return twin

    def factorize(self, A, ldl=None, beta=0.0):
        assert isinstance(ldl, bool) and ldl, "the fake knows LDL only"
        given = A.toarray() if self.is_lower else A.toarray().T
        full = np.tril(given) + np.tril(given, -1).T + beta * np.eye(len(given))
        self._matrix = full
        work = full[np.ix_(self.perm, self.perm)]
        pattern = work != 0
        n = len(work)
        for j in range(n):
            if work[j, j] == 0:  # a negative pivot goes through, as in CHOLMOD's LDL
                raise CholmodNotPositiveDefiniteError(f"Failed at column {j}.")
            pattern[j + 1 :, j + 1 :] |= np.outer(pattern[j + 1 :, j], pattern[j + 1 :, j])
            column = work[j + 1 :, j] / work[j, j]
            work[j + 1 :, j + 1 :] -= np.outer(column, work[j + 1 :, j])
            work[j + 1 :, j] = column
        row, column = np.nonzero(np.tril(pattern | np.eye(n, dtype=bool)))
        view = sparse.coo_array((work[row, column], (row, column)), shape=(n, n)).tocsc()
        for part in (view.data, view.indices, view.indptr):
            part.setflags(write=False)
        self.factor = view
        return self

    def solve(self, b, system="A"):
        assert isinstance(b, np.ndarray) and b.dtype == np.float64 and system == "A"
        return np.asfortranarray(np.linalg.solve(self._matrix, b))


module = ModuleType("sksparse.cholmod")
for name in ("CholmodError", "CholmodNotPositiveDefiniteError", "CholmodNotInstalledError",
             "CholeskyFactor"):
    setattr(module, name, globals()[name])
module.cholesky = lambda *args, **kwargs: None  # in 0.5 this returns arrays, not a factor
