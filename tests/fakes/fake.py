"""A method that trains nothing and can go wrong in every way: for tests and benchmarks of the scheduler."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from bench.method import EpochMethod
from bench.trial.task import Task


class Fake(EpochMethod):
    """Sleeps `seconds` per epoch, then does what `fault` says in epoch `at`."""

    slug = "fake"

    seconds: float = 0.0
    fault: Literal["none", "raise", "hang", "kill", "kill-once", "exit", "nan", "device"] = "none"
    at: int = 0
    #: a folder for a note of each epoch that ran ("<tag>-<epoch>-<pid>")
    notes: str = ""
    tag: int = 0

    def setup(self, task: Task) -> None:
        self.count = torch.zeros(())

    def epoch(self, epoch: int) -> None:
        if self.notes:
            Path(self.notes, f"{self.tag}-{epoch}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        self.count += 1
        if epoch == self.at:
            self._go_wrong()

    def _go_wrong(self) -> None:
        if self.fault == "raise":
            raise RuntimeError("this method is broken")
        if self.fault == "device":
            raise RuntimeError("CUDA error: device-side assert triggered")
        if self.fault == "hang":
            while True:
                time.sleep(0.01)
        if self.fault == "exit":
            sys.exit(3)
        if self.fault == "nan":
            self.count = self.count * float("nan")
        once = Path(self.notes, f"killed-{self.tag}")
        if self.fault == "kill" or (self.fault == "kill-once" and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def predict(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)[:, : self.task.num_classes]
        return torch.softmax(flat * 0 + self.count * 0 + torch.arange(self.task.num_classes), dim=1)
