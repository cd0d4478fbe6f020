"""The engine: how the same mathematics is computed. Nothing here enters a cell's identity; all of it is recorded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILE = ("off", "default", "cuda-graphs")


@dataclass(frozen=True)
class Engine:
    """Settings of the training core; a suite gives them under `resources`.

    precision: `float32`, or autocast in `bfloat16` or `float16` (with a loss scaler); weights stay float32. channels_last:
    memory layout of networks and images. compile: `torch.compile` of the network's passes, `cuda-graphs` with graph
    capture; a network that does not compile runs as it is, with a warning in the record. deterministic: on CUDA, only
    algorithms whose result is the same bits every time (CPU results always are). tf32: on CUDA, TensorFloat-32 products.
    """

    precision: str = "float32"
    channels_last: bool = False
    compile: str = "off"
    deterministic: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.compile not in COMPILE:
            raise ValueError(f"compile must be one of {', '.join(COMPILE)}, got {self.compile!r}")

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]

    def describe(self) -> dict[str, Any]:
        return asdict(self)

    @contextlib.contextmanager
    def applied(self, device: torch.device) -> Iterator[None]:
        """The process-wide switches of torch, set for one trial on CUDA and put back afterwards: a worker is reused."""
        if device.type != "cuda":
            yield
            return
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; deterministic mode needs it
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = (
            torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32,
        )  # fmt: skip
        try:
            torch.use_deterministic_algorithms(self.deterministic)
            cudnn.benchmark = not self.deterministic
            cudnn.allow_tf32 = matmul.allow_tf32 = self.tf32
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before[2:]
