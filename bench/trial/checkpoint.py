"""Checkpoints inside a cell: written atomically at the end of an epoch, read back with weights only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from bench.method import Method
from bench.records import write_atomic
from bench.trial.evaluate import Curve

VERSION = 1


def save(path: Path, identity: str, code: str, epoch: int, method: Method, curve: Curve, clocks: dict[str, float]) -> int:
    """Write the state after `epoch`; returns the size in bytes. Raises `OSError` when it cannot be written."""
    state = {
        "version": VERSION,
        "cell": identity,
        "code": code,
        "epoch": epoch,
        "method": method.state_dict(),
        "curve": curve.as_dict(),
        "clocks": clocks,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())
    return buffer.tell()


def load(path: Path, identity: str, code: str, device: torch.device) -> tuple[dict[str, Any] | None, str | None]:
    """(state, None), or (None, why it cannot be used); a checkpoint is an economy, so a bad one is never an error."""
    if not path.exists():
        return None, None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        return None, f"checkpoint {path.name} is damaged ({type(error).__name__}), starting from the first epoch"
    if not isinstance(state, dict) or state.get("version") != VERSION or state.get("cell") != identity:
        return None, f"checkpoint {path.name} belongs to another cell or version, starting from the first epoch"
    if state["code"] != code:
        return None, f"checkpoint {path.name} was made by other code, starting from the first epoch"
    return state, None
