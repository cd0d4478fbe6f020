"""A cell: everything that decides one result, canonical and hashed (law 1).

A cell is a plain dictionary with exactly the keys of `AXES`. Its id is a hash of the canonical JSON text; paths,
devices, worker counts, labels and the names of recipes never enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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


def stream_seed(*axes: Any) -> int:
    """A 63-bit seed for the random stream that these axes name (law 5); the same on every machine."""
    digest = hashlib.sha256(("bench stream 1\n" + canonical_json(list(axes))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
