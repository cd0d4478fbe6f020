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

VERSION = 2
_DIGEST = hashlib.sha256().digest_size


def name_of(identity: str) -> str:
    return f"{identity}.ckpt"


def save(
    where: Storage, identity: str, made: dict[str, Any], epoch: int, method: Method, curve: Curve, clocks: dict[str, float],
    watched: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    """Write the state after `epoch`, with that of the watcher where there is one; returns the size in bytes. Raises `OSError`
    when it cannot be written. `made`: the `code` and whatever else a record says of how it was computed."""
    state = {
        "version": VERSION,
        "cell": identity,
        "made": made,
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


def load(where: Storage, identity: str, made: dict[str, Any], device: torch.device) -> tuple[dict[str, Any] | None, str | None]:
    """(state, None), or (None, why it cannot be used); a checkpoint is an economy, so a bad one is never an error.

    One that was computed in another way is not used: the record would claim of all epochs what is true of the last ones.
    """
    name = name_of(identity)
    try:
        found = where.read(name)
        if found is None:
            return None, None
        content = memoryview(found)
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None, f"checkpoint {name} is damaged, starting from the first epoch"
        state = torch.load(io.BytesIO(content[_DIGEST:]), map_location=placed(device), weights_only=True)
    except Exception as error:
        return None, f"checkpoint {name} cannot be read ({type(error).__name__}), starting from the first epoch"
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("cell") != identity:
        return None, f"checkpoint {name} belongs to another cell or version, starting from the first epoch"
    if state["made"]["code"] != made["code"]:
        return None, f"checkpoint {name} was made by other code, starting from the first epoch"
    changed = [f"{key} {state['made'].get(key)} (now {value})" for key, value in made.items() if state["made"].get(key) != value]
    if changed:
        return None, f"checkpoint {name} was made with {', '.join(changed)}, starting from the first epoch"
    return state, None


def placed(device: torch.device) -> Any:
    """A `map_location` for `torch.load`: what was on a GPU goes to `device`, and what a method keeps on the host stays there."""
    restore = torch.serialization.default_restore_location
    return lambda storage, location: restore(storage, location if location == "cpu" else str(device))
