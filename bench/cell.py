"""A cell: everything that decides one result, canonical and hashed (law 1).

A cell is a plain dictionary with exactly the keys of `AXES`. Its id is a hash of the canonical JSON text; paths,
devices, worker counts, labels and the names of recipes never enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

AXES = ("dataset", "noise", "method", "model", "training", "protocol", "seed")
_DOMAIN = "bench cell 1\n"  # changes only if the meaning of the canonical form changes


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, shortest round-trip floats; raises `ValueError` on NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def cell_id(cell: Mapping[str, Any]) -> str:
    """16 hexadecimal digits (64 bits) of SHA-256. Raises `ValueError` when an axis is missing or unknown."""
    if set(cell) != set(AXES):
        raise ValueError(f"a cell has the keys {', '.join(AXES)}; got {', '.join(sorted(cell))}")
    return hashlib.sha256((_DOMAIN + canonical_json(dict(cell))).encode()).hexdigest()[:16]


def cell_ids(cell: Mapping[str, Any]) -> Callable[[int], str]:
    """The ids of cells that differ in the seed alone: what they share is put into canonical form once.

    `cell_ids(cell)(seed)` equals `cell_id({**cell, "seed": seed})`. Raises as `cell_id` does.
    """
    cell_id({**cell, "seed": 0})
    before, after = ({key: cell[key] for key in AXES if key != "seed" and (key < "seed") == first} for first in (True, False))
    front = hashlib.sha256((_DOMAIN + canonical_json(before)[:-1] + ',"seed":').encode())
    back = "," + canonical_json(after)[1:]

    def identity(seed: int) -> str:
        digest = front.copy()
        digest.update((canonical_json(seed) + back).encode())
        return digest.hexdigest()[:16]

    return identity


def stream_seed(*axes: Any) -> int:
    """A 63-bit seed for the random stream that these axes name (law 5); the same on every machine."""
    digest = hashlib.sha256(("bench stream 1\n" + canonical_json(list(axes))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
