"""As much of Keras's backend as the losses of two released repositories call, on torch, so that they can be run as they are."""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def stubs() -> dict[str, Any]:
    """Modules by name, for `common.module(path, stubs())`."""
    backend = types.SimpleNamespace(
        epsilon=lambda: 1e-7,
        sum=lambda x, axis, keepdims=False: x.sum(dim=axis, keepdim=keepdims),
        clip=lambda x, low, high: x.clamp(low, high),
        log=torch.log,
        argmax=lambda x, axis: x.argmax(dim=axis),
        one_hot=lambda index, num_classes: F.one_hot(index, num_classes).float(),
        shape=lambda x: x.shape,
        dot=torch.matmul,
        constant=lambda values: torch.as_tensor(values, dtype=torch.float32),
    )
    keras = types.ModuleType("keras")
    keras.backend = backend  # type: ignore[attr-defined]
    return {"keras": keras, "keras.backend": backend, "tensorflow": types.ModuleType("tensorflow")}


def on_logits(loss: Any) -> Any:
    """A Keras loss of (one-hot labels, probabilities) as a function of (logits, labels), per sample."""

    def of_logits(logits: Tensor, labels: Tensor) -> Tensor:
        probabilities = logits.softmax(dim=1).clone()  # it divides them in place
        return loss(F.one_hot(labels, logits.shape[1]).float(), probabilities)

    return of_logits
