"""Class-conditional noise from a transition matrix that the suite writes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError
from bench.noise import Labels, NoiseInput, NoiseKind
from bench.noise._choose import check_matrix, draw_from_rows


class Matrix(NoiseKind):
    """Row c of `rows` is the distribution of the given label for class c."""

    slug = "matrix"
    summary = "labels drawn from the rows of a given K x K transition matrix"
    short_field = ""

    rows: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def identity(cls, params: Mapping[str, Any]) -> dict[str, Any]:
        return {"rows": [list(row) for row in super().identity(params)["rows"]]}

    @classmethod
    def label(cls, identity: Mapping[str, Any]) -> str:
        import hashlib

        from bench.cell import canonical_json

        return "matrix " + hashlib.sha256(canonical_json(identity["rows"]).encode()).hexdigest()[:8]

    @classmethod
    def misfit(cls, dataset: Any, fields: Mapping[str, Any] | None = None) -> str | None:
        rows = len((fields or {}).get("rows", ()))
        if not dataset.num_classes or rows in (0, dataset.num_classes):  # only the files of an image folder tell its classes
            return None
        return f"the matrix has {rows} rows, {dataset.slug} has {dataset.num_classes} classes"

    def validate(self) -> None:
        if not self.rows:
            raise FieldError("rows", "matrix noise needs its matrix", "a list of K rows, each a list of K probabilities")
        if len({len(row) for row in self.rows}) > 1:
            raise FieldError("rows", "the rows of a transition matrix are equally long")
        check_matrix(self.matrix, "rows")

    @property
    def matrix(self) -> NDArray[np.float64]:
        return np.array(self.rows, dtype=np.float64)

    def definition(self) -> str:
        return f"each label drawn from its row of a given {len(self.rows)} x {len(self.rows)} transition matrix"

    def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
        self.validate()
        if len(self.rows) != data.num_classes:
            raise FieldError("rows", f"the matrix has {len(self.rows)} rows, the data set {data.num_classes} classes")
        return draw_from_rows(self.matrix[data.labels], rng.random(len(data.labels)))

    @property
    def nominal(self) -> float:
        return float(1 - np.diag(self.matrix).mean())

    def expected(self, data: NoiseInput) -> float:
        return float(1 - np.diag(self.matrix)[data.labels].mean())
