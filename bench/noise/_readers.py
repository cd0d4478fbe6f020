"""Label vectors out of the files in which papers publish them. Every refusal names the file."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.fields import FieldError, nearest
from bench.noise._base import Labels

FORMATS = (".json", ".npy", ".npz", ".pt", ".csv", ".txt")
#: names under which a file's noisy labels are known, most particular first
_USUAL = ("noise_labels", "noisy_labels", "noisy_label", "label_noisy", "noise_label", "labels", "label")


def split_location(location: str, found: Callable[[Path], Any] = Path.is_file) -> tuple[Path, str]:
    """`path` or `path#key`, as users write it, to (path, key). Names may have a `#`: the longest path that is `found` wins.

    Where none is, the key begins at the first `#` of the last name.
    """
    folder, slash, name = location.rpartition("/")
    name, _, key = name.partition("#")
    return next((split for split in _splits(location) if found(split[0])), (Path(folder + slash + name), key))


def stored_location(path: Path, key: str) -> str:
    """What `PlannedNoise.files` holds; the empty key is written too, so that a `#` in the path is not taken for its end."""
    return f"{path}#{key}"


def split_stored(location: str) -> tuple[Path, str]:
    """The inverse of `stored_location`; a key may have a `#` too."""
    splits = _splits(location)[1:] or [(Path(location), "")]
    return next((split for split in splits if split[0].is_file()), splits[0])


def _splits(location: str) -> list[tuple[Path, str]]:
    """All readings as (path, key), the longest path first."""
    parts = location.split("#")
    return [(Path("#".join(parts[:n])), "#".join(parts[n:])) for n in range(len(parts), 0, -1)]


def read_labels(path: Path, key: str = "") -> Labels:
    """The label vector int64 [N] of a file, or of what it calls `key`. Raises `FieldError` naming the file.

    JSON: a list, as DivideMix writes it, or a mapping with `noise_labels`, as ScanMix does. npz, pt, pickled npy: mappings of
    arrays. CSV: a column by its name, with the rows in the order of an `index` column where there is one; or one
    label per line. The key may be left out where the file has one vector or one under a usual name.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise FieldError("path", f"{path}: the format {suffix or 'without suffix'} is not known", "known: " + ", ".join(FORMATS))
    if not path.is_file():
        raise FieldError("path", f"{path}: no such file")
    content = _content(path, suffix)
    if isinstance(content, Mapping):
        _refuse_open(path, content)
        content = _entry(path, content, key)
    elif key:
        raise FieldError("key", f"{path}: the file is one vector, there is nothing called {key!r} in it", "remove the key")
    return _vector(path, content, key)


def _content(path: Path, suffix: str) -> Any:
    """A vector, or a mapping of names to vectors."""
    from bench.data import DataError

    try:
        if suffix == ".json":
            return json.loads(path.read_text())
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        if suffix in (".csv", ".txt"):
            return _read_csv(path)
        from bench.data._pickles import read_npy, read_pt

        return read_pt(path) if suffix == ".pt" else read_npy(path)
    except FieldError:
        raise
    except DataError as error:  # names the file itself
        raise FieldError("path", str(error)) from None
    except OSError as error:
        raise FieldError("path", f"{path}: the file cannot be read: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, RecursionError) as error:
        raise FieldError("path", f"{path}: the file is damaged, or no {suffix[1:]}: {error}") from None


def _read_csv(path: Path) -> Any:
    with open(path, newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise FieldError("path", f"{path}: the file is empty")
    if len(rows[0]) == 1 and re.fullmatch(r"\s*-?\d+\s*", rows[0][0]):  # no head: one label per line
        return [_whole(path, number, ",".join(row)) for number, row in enumerate(rows, 1)]
    head, body = [name.strip() for name in rows[0]], rows[1:]
    for number, row in enumerate(body, 2):
        if len(row) != len(head):
            raise FieldError("path", f"{path}:{number}: {len(row)} values in a table of {len(head)} columns")
    columns = {name: [row[i] for row in body] for i, name in enumerate(head)}
    if "index" not in columns:
        return columns
    order = np.array([_whole(path, number, text) for number, text in enumerate(columns.pop("index"), 2)])
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise FieldError("path", f"{path}: the column index does not number the {len(order)} rows from 0")
    place = np.argsort(order)
    return {name: [values[i] for i in place] for name, values in columns.items()}


def _whole(path: Path, line: int, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise FieldError("path", f"{path}:{line}: {text!r} is no label") from None


def _refuse_open(path: Path, content: Mapping[str, Any]) -> None:
    if len(content.get("open_noise", ())):
        count = len(content["open_noise"])
        message = f"{path}: the file also replaces {count} pictures by another data set's (open_noise), and labels alone are read"
        raise FieldError("path", message, "use open-set noise")


def _entry(path: Path, content: Mapping[str, Any], key: str) -> Any:
    if not key:
        vectors = [name for name, value in content.items() if np.ndim(value) == 1 and len(value)]
        key = next((name for name in _USUAL if name in vectors), vectors[0] if len(vectors) == 1 else "")
        if not key:
            names = ", ".join(map(str, vectors[:8])) + (", ..." if len(vectors) > 8 else "")
            raise FieldError(
                "key",
                f"{path}: the file holds {len(vectors)} vectors and does not say which is meant",
                f"give `key`: {names}",
            )
    if key not in content:
        raise FieldError("key", f"{path}: there is nothing called {key!r} in it", nearest(key, map(str, content)))
    return content[key]


def _vector(path: Path, content: Any, key: str) -> Labels:
    where = f"{path}#{key}" if key else str(path)
    try:
        array = np.asarray(content)
    except ValueError:
        raise FieldError("path", f"{where}: not a list of labels") from None
    if array.ndim != 1 or len(array) == 0:
        raise FieldError("path", f"{where}: labels are one list of numbers, this has the shape {array.shape}")
    if array.dtype.kind in "US":
        try:
            return array.astype(np.int64)
        except ValueError:
            raise FieldError("path", f"{where}: its values are texts, not class numbers") from None
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.trunc(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise FieldError("path", f"{where}: its values are {array.dtype}, not class numbers")
    return array.astype(np.int64)
