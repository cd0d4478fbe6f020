"""What a run leaves behind, as one object, and the error that no suite is to blame for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.plan import Plan, Scan

RESULTS = "results"
MANIFEST = "plan.json"
WORK = ".work"
Say = Callable[[str], None]


class EnvironmentProblem(Exception):
    """Something outside of the suite is missing or wrong: data, permissions, a server (exit code 3)."""


@dataclass
class RunReport:
    """The outcome of `run`. `exit_code` is what the command line returns (law 9)."""

    suite: str
    folder: Path
    plan: Plan
    scan: Scan
    ran: int = 0
    lost: int = 0  # cells without a record, by no fault of their own
    interrupted: bool = False
    mirrored: bool = False  # the MLflow mirror has all that ran
    warnings: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    text: str = ""

    @property
    def counts(self) -> dict[str, int]:
        return self.scan.counts()

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return 130
        if self.lost:
            return 3
        return 0 if set(self.counts) <= {"done", "skipped"} else 1
