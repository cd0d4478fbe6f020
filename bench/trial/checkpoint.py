"""Checkpoints inside a cell: written atomically at the end of an epoch, read back with weights only.

A file begins with the SHA-256 of what follows: torch.load does not notice a flipped bit in a tensor.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import torch

from bench.method import Method
from bench.trial.evaluate import Curve
from bench.trial.storage import Storage

VERSION = 1
_DIGEST = hashlib.sha256().digest_size


def name_of(identity: str) -> str:
    return f"{identity}.ckpt"


def save(
    where: Storage, identity: str, code: str, epoch: int, method: Method, curve: Curve, clocks: dict[str, float],
    watched: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Write the state after `epoch`, with that of the watcher where there is one; returns the size in bytes. Raises `OSError`
    when it cannot be written."""
    state = {
        "version": VERSION,
        "cell": identity,
        "code": code,
        "epoch": epoch,
        "method": method.state_dict(),
        "curve": curve.as_dict(),
        "clocks": clocks,
        **({"watched": watched} if watched is not None else {}),
    }
    buffer = io.BytesIO(bytes(_DIGEST))
    buffer.seek(_DIGEST)
    torch.save(state, buffer)
    data = buffer.getbuffer()
    data[:_DIGEST] = hashlib.sha256(data[_DIGEST:]).digest()
    where.write(name_of(identity), data)
    return len(data)


def load(where: Storage, identity: str, code: str, device: torch.device) -> tuple[dict[str, Any] | None, str | None]:
    """(state, None), or (None, why it cannot be used); a checkpoint is an economy, so a bad one is never an error."""
    name = name_of(identity)
    try:
        found = where.read(name)
        if found is None:
            return None, None
        content = memoryview(found)
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None, f"checkpoint {name} is damaged, starting from the first epoch"
        state = torch.load(io.BytesIO(content[_DIGEST:]), map_location=device, weights_only=True)
    except Exception as error:
        return None, f"checkpoint {name} cannot be read ({type(error).__name__}), starting from the first epoch"
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("cell") != identity:
        return None, f"checkpoint {name} belongs to another cell or version, starting from the first epoch"
    if state["code"] != code:
        return None, f"checkpoint {name} was made by other code, starting from the first epoch"
    return state, None
