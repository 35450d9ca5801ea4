"""What a fitted `SAEManifold` does with rows: encode, decode, and the table of `transform`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from reml_sae.diagnostics import summary_text, write_report
from reml_sae.errors import InputError, NotFittedError
from reml_sae.estimators._attributes import FittedAttributes
from reml_sae.estimators._codes import Codes, column_names, read_columns
from reml_sae.estimators._feature_names import compare_names
from reml_sae.estimators._fitted import FittedSAE
from reml_sae.estimators._folder import write_folder
from reml_sae.estimators._measures import (
    COMPARED_ROWS,
    LinearComparison,
    Metrics,
    TopRows,
    compare_linear,
    measure,
    tally_of,
    top_rows,
)
from reml_sae.estimators._persistence import write_fit
from reml_sae.estimators._shown import shown_rows
from reml_sae.estimators._streaming import (
    codes_of,
    explained,
    joined_codes,
    open_rows_of,
    prediction_of,
    spread_of,
    spread_rows,
    stream,
)
from reml_sae.estimators._units import check_magnitude
from reml_sae.estimators._validation import check_integer
from reml_sae.io import matrix_digest, read_matrix
from reml_sae.linalg import single_threaded
from reml_sae.models import SAEManifoldModel
from reml_sae.typing import Array

Result = TypeVar("Result")


class Reading(FittedAttributes, TransformerMixin, BaseEstimator):
    """Methods of an estimator that has a `FittedSAE`."""

    _fitted: FittedSAE
    random_state: int | None
    executor: Any

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        text: str = super().__repr__(N_CHAR_MAX)
        return f"<{text}: {self._fitted.status()}>" if hasattr(self, "_fitted") else text

    def __sklearn_clone__(self) -> Any:
        """An estimator with the same parameters, not fitted; the executor is not copied but shared.

        A client of a cluster holds connections, of which there is no copy.
        """
        bare = copy(self).set_params(executor=None)
        return BaseEstimator.__sklearn_clone__(bare).set_params(executor=self.executor)

    # --- codes -----------------------------------------------------------------------------------

    @single_threaded
    def encode(self, Z: Any) -> Codes:
        """Codes of rows under the fitted decoders.

        A penalty along a sequence takes these rows as a sequence of their own. The rows of a file
        are read, and with an ``executor`` all rows are sent, a chunk at a time.

        Parameters
        ----------
        Z : (N, p) array-like, data frame, tensor or path, as in ``fit``

        Returns
        -------
        Codes

        Raises
        ------
        InputError
            Where Z cannot be used, or a penalty holds values for another number of rows, or ties
            rows of different chunks.
        WorkerError
            Where a worker of the ``executor`` died.
        """
        return joined_codes(self._stream(Z, codes_of))

    @single_threaded
    def decode(self, codes: Codes) -> Array:
        """Mean of the data (N, p) given codes, in their units.

        Raises
        ------
        InputError
            Where ``codes`` are none of this model.
        """
        self._check_fitted()
        if not isinstance(codes, Codes):
            raise InputError(f"codes must be the Codes that encode returns, got "
                             f"{type(codes).__name__}; of rows, predict(Z) is the reconstruction, "
                             "and of what transform returns, inverse_transform(X)")
        if len(codes.topologies) != len(self._fitted.atoms):
            raise InputError(f"codes are of {len(codes.topologies)} atoms, this model has "
                             f"{len(self._fitted.atoms)}; use the codes of its own encode")
        for k, (mine, theirs) in enumerate(zip(self._fitted.atoms, codes.topologies, strict=True)):
            if mine.topology.to_config() != theirs.to_config():
                raise InputError(f"atom {k} of the codes is a {theirs.label}, of this model a "
                                 f"{mine.topology.label}; use the codes of its own encode")
        return self._fitted.decode_codes(codes)

    def reconstruct(self, codes: Codes) -> Array:
        """What `decode` returns, under the name that autoencoders have for it."""
        return self.decode(codes)

    @single_threaded
    def predict(self, Z: Any) -> Array:
        """Reconstruction of rows, (N, p)."""
        return _joined(self._stream(Z, prediction_of))

    @single_threaded
    def score(self, Z: Any, y: object = None) -> float:
        """Fraction of the variance of Z that the reconstruction explains, rows at their weights.

        Of families but the Gaussian, of the deviance from the fitted offset.
        """
        return explained(self._stream(Z, spread_of))

    # --- the transformer -------------------------------------------------------------------------

    def transform(self, Z: Any) -> Array:
        """Codes of rows as a table: each atom's amplitude, and the amplitude times its point.

        The point is that of the manifold in its ambient form: cosine and sine of an angle, x, y, z
        of a sphere, the coordinate itself of an interval or a flat. All columns of an atom are 0
        where the row does not use it. `get_feature_names_out` names them; `encode` returns codes as
        they are.

        Parameters
        ----------
        Z : (N, p) array-like, data frame, tensor or path, as in ``fit``

        Returns
        -------
        (N, columns) array, or the container that ``set_output`` asked for
        """
        return self.encode(Z).to_array()

    def fit_transform(self, Z: Any, y: object = None) -> Array:
        """Fit and return the table of the training rows, as `transform` does."""
        codes: Codes = self.fit(Z).codes_
        return codes.to_array()

    @single_threaded
    def inverse_transform(self, X: Any) -> Array:
        """Rows (N, p) of the data that a table of codes stands for.

        Parameters
        ----------
        X : (N, columns) array-like
            As `transform` returns it. A point beside its manifold is moved to the nearest one on
            it; a row that carries no coordinate of an atom has the atom's mean.

        Raises
        ------
        InputError
            Where X has another width, an amplitude is 0 but its point is not, or a point has no
            direction, so that no place on the manifold is nearest.
        """
        self._check_fitted()
        table, names = read_matrix(X, "X"), self._column_names
        if table.shape[1] != len(names):
            raise InputError(f"X has {table.shape[1]} columns, but the codes of this model have "
                             f"{len(names)}; get_feature_names_out() names them")
        topologies = [atom.topology for atom in self._fitted.atoms]
        return self._fitted.decode(*read_columns(table, topologies, self._fitted.assignment))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns of `transform`, such as ``atom0_amplitude``, ``atom0_cos``.

        Parameters
        ----------
        input_features : ignored
            The columns are no longer those of the data.
        """
        self._check_fitted()
        return np.array(self._column_names, object)

    @property
    def _column_names(self) -> list[str]:
        return column_names([atom.topology for atom in self._fitted.atoms])

    # --- what the atoms are for ------------------------------------------------------------------

    @single_threaded
    def steer(self, Z: Any, atom: int, delta: Any) -> Array:
        """Rows moved along one atom; what the atoms do not explain of a row stays with it.

        The dose is a change of the coordinate: radians of an angle, prior standard deviations of
        an interval's or a flat's coordinate, radians of arc along the tangential part of ``delta``
        on a sphere. What it does to a row is its amplitude times the curve there less the curve
        here, so that equal doses are not equal lengths in the columns of Z. Doses add within a
        call, not over calls: rows that were moved are encoded anew, and what the atom does not
        explain of them, which stayed where it was, draws their coordinate a little. Give the whole
        dose at once, from the rows as they were. Of families but the Gaussian it is the mean that
        moves, and rows may leave the range of the data.

        Parameters
        ----------
        Z : (N, p) array-like, data frame, tensor or path, as in ``fit``
        atom : int
        delta : float or (d,) array
            A number where the atom has one coordinate.

        Returns
        -------
        (N, p) array
            Rows that do not use the atom are as they were.

        Raises
        ------
        InputError
            Where there is no such atom, or ``delta`` is none of its coordinates.
        """
        k = self._atom(atom)
        d = self._fitted.atoms[k].topology.latent_dim
        try:
            step = np.asarray(delta, float)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"delta must be numbers, got {delta!r:.60}") from error
        if d == 0:
            raise InputError(f"atom {k} is a point, along which nothing moves; name another atom")
        if step.shape not in ([(d,), ()] if d == 1 else [(d,)]) or not np.isfinite(step).all():
            raise InputError(f"delta must be {d} finite number{'s' if d > 1 else ''} for atom {k}, "
                             f"{self._fitted.atoms[k].topology.label}; got {delta!r}")
        return _joined(self._stream(Z, partial(FittedSAE.steered, k=k, step=step)))

    def top_rows(self, atom: int, n: int = 10) -> TopRows:
        """Training rows with the largest amplitudes of an atom, with their coordinates.

        Under softmax the amplitude is the row's share.

        Parameters
        ----------
        atom : int
        n : int
            How many at most; rows that do not carry the atom are left out.
        """
        self._check_fitted()
        return top_rows(self._fitted.codes, self._atom(atom), check_integer("n", n, 1))

    @single_threaded
    def metrics(self, Z: Any) -> Metrics:
        """Sparsity, bits a row, explained variance and dead atoms on rows, read as `encode` does.

        Raises
        ------
        InputError
            Where Z cannot be used, or is constant.
        """
        return measure(self._stream(Z, tally_of))

    @single_threaded
    def compare_linear(self, Z: Any) -> LinearComparison:
        """Explained variance beside that of a linear TopK dictionary at equal bits and numbers.

        The dictionary has as many vectors as the decoders, and is learned on these very rows, once
        for each number of atoms a row: of rows that the fit did not see it has the better of it. Of
        more than 20 000 rows both are compared on so many, evenly over all.

        Raises
        ------
        InputError
            Where Z cannot be used, or the family is not the Gaussian.
        """
        self._check_fitted()
        fitted = self._fitted
        if not fitted.family.has_dispersion:
            raise InputError(f"compare_linear is for the Gaussian family; {fitted.family.name} has "
                             "no squared error at which bits could be equal")
        compare_names(self, Z)
        data = spread_rows(open_rows_of(fitted, Z), COMPARED_ROWS)
        size = sum(atom.topology.basis_size for atom in fitted.atoms)
        return compare_linear(stream(fitted, data, self.executor, tally_of), size, data,
                              self.random_state)

    # --- the model and its file ------------------------------------------------------------------

    @single_threaded
    def build_model(self, Z: Any) -> SAEManifoldModel:
        """Arrow model at the fitted structure and state, for `reml_sae.criterion`.

        Parameters
        ----------
        Z : array-like (N, p)
            The training rows; other rows, told by ``data_digest_``, are encoded first.
        """
        data = self._data(Z)
        rows = self._fitted.units.standardised(data)
        if matrix_digest(data) == self._fitted.units.digest:
            return self._fitted.training_model(rows)
        return self._fitted.encoded(rows)[0]

    def summary(self) -> str:
        """Text table of the fit, in the manner of mgcv's summary."""
        self._check_fitted()
        return summary_text(self)

    @single_threaded
    def report(
        self, path: str | os.PathLike[str], Z: Any = None, labels: Sequence[str] | None = None,
        *, source: str = "", force: bool = False,
    ) -> None:
        """Write the report of the fit as one self-contained HTML page, atomically.

        Parameters
        ----------
        path : path
        Z : array-like (N, p) or path, optional
            The training rows, to be shown beside the curves; some of them after a fit by sweeps.
        labels : sequence of N str, optional
            A text for every row.
        source : str
            What the data are called.
        force : bool
            Whether a page without rows may take the place of one with rows.

        Raises
        ------
        InputError
            Where Z are not the rows of the fit, there is not one text a row, or a better report
            would be lost.
        """
        self._check_fitted()
        if Z is not None:
            compare_names(self, Z)
        write_report(path, *shown_rows(self, self._fitted, Z, labels, source), force)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to one .safetensors file, atomically."""
        self._check_fitted()
        write_fit(path, self._fitted, self.get_params(deep=False))

    def save_folder(self, path: str | os.PathLike[str], n_anchors: int = 12) -> None:
        """Write the fit, and its curves as directions in SAELens' layout, as a new folder.

        Parameters
        ----------
        path : path
            ``cfg.json``, ``sae_weights.safetensors`` and ``fit.safetensors`` are written into it.
        n_anchors : int
            About how many points of every curved atom become directions, at least 2.

        Raises
        ------
        InputError
            Where the folder is there already, or the family is not Gaussian.
        """
        self._check_fitted()
        write_folder(path, self._fitted, check_integer("n_anchors", n_anchors, 2), self.save)

    # --- helpers ---------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "_fitted"):
            raise NotFittedError("this SAEManifold is not fitted yet; call fit(Z) first")

    def _atom(self, atom: Any) -> int:
        self._check_fitted()
        most = len(self._fitted.atoms) - 1
        if check_integer("atom", atom, 0) > most:
            raise InputError(f"atom={atom!r}: this model has atoms 0 to {most}")
        return int(atom)

    def _stream(
        self, Z: Any, of_rows: Callable[[FittedSAE, Array], Result]
    ) -> Iterable[Result]:
        self._check_fitted()
        compare_names(self, Z)
        return stream(self._fitted, Z, self.executor, of_rows)

    def _data(self, Z: Any) -> Array:
        self._check_fitted()
        compare_names(self, Z)
        data = read_matrix(open_rows_of(self._fitted, Z))
        check_magnitude(data, self._fitted.units.scale)
        return data


def _joined(parts: Iterable[Array]) -> Array:
    """The rows of all chunks."""
    whole = list(parts)
    return whole[0] if len(whole) == 1 else np.concatenate(whole)
