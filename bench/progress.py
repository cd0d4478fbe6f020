"""What a person sees while cells run: one line per finished cell, and on a terminal a bar with counts and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.live import Live
from bench.records import first_line
from bench.safe_text import printable, without_credentials
from bench.schedule import Adopted, Job, Listener

Say = Callable[[str], None]


def headline(record: dict[str, Any]) -> str:
    """The numbers of a finished cell in a few words."""
    if record["status"] == "done":
        metrics = record["metrics"]
        text = f"test {100 * metrics['test_acc_last']:.1f} % last, {100 * metrics['test_acc_best_oracle']:.1f} % best"
        if "worst_group_acc_last" in metrics:
            text += f", worst group {100 * metrics['worst_group_acc_last']:.1f} %"
        seconds = sum(record["cost"][name] for name in ("setup_seconds", "train_seconds", "eval_seconds"))
        seconds += sum(stage["seconds"] for stage in record["cost"].get("stages", ()) if stage["built"])
        return f"{text}  {seconds:.1f} s"
    return first_line(record["reason"], 300)


class Progress(Listener):
    """Counts and prints; the same lines on a terminal and in a log. `live` tells other processes what runs."""

    def __init__(self, jobs: Sequence[Job], mirror: Any, say: Say, live: Live | None = None) -> None:
        self.total, self.mirror, self.live = len(jobs), mirror, live
        self.say: Say = lambda line: say(printable(without_credentials(line)))
        self.counts: Counter[str] = Counter()
        self.running: set[str] = set()
        self.warnings: list[str] = []
        self.begin = time.monotonic()

    def __enter__(self) -> Progress:
        if self.live is not None:
            self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.__exit__()

    @property
    def finished_count(self) -> int:
        return sum(self.counts.values())

    def time_left(self) -> str:
        """A plain extrapolation from the cells so far."""
        done = self.finished_count
        if done == 0:
            return "?"
        seconds = (time.monotonic() - self.begin) / done * (self.total - done)
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

    def started(self, job: Job) -> None:
        self.running.add(job.id)
        if self.live is not None:
            self.live.started(job.id, job.label, int(job.cell["training"]["epochs"]))

    def epoch(self, job: Job, epoch: int, values: dict[str, float | None]) -> None:
        if self.live is not None:
            self.live.epoch(job.id, epoch, values)

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        self.running.discard(job.id)
        self.counts[record["status"]] += 1
        origin = " (by another run)" if isinstance(record, Adopted) else ""
        self.say(
            f"[{self.finished_count:>{len(str(self.total))}}/{self.total}] {record['status']:<8} {job.label}: "
            f"{headline(record)}{origin}  (left: {self.time_left()})"
        )
        for warning in record["warnings"]:
            self.warnings.append(f"{job.label}: {warning}")
        if self.live is not None:
            self.live.counted(self.finished_count, self.time_left())
            self.live.finished(job.id, record, elsewhere=isinstance(record, Adopted))
        if self.mirror is not None and not isinstance(record, Adopted):  # who wrote a record mirrors it, else it is there twice
            self.mirror.log(record, job.label)

    def lost(self, job: Job, reason: str) -> None:
        self.running.discard(job.id)
        self.counts["lost"] += 1
        self.warnings.append(f"{job.label}: no record, run the suite again: {reason}")
        self.say(f"[{self.finished_count}/{self.total}] lost     {job.label}: {reason}")
        if self.live is not None:
            self.live.counted(self.finished_count, self.time_left())
            self.live.lost(job.id, reason)


class BarProgress(Progress):
    """The same with a live bar below the lines."""

    def __enter__(self) -> BarProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        super().__enter__()
        self._console = Console()
        self._bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"), console=self._console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=self.total, left="?")
        self.say = lambda line: self._console.print(
            printable(without_credentials(line)), markup=False, highlight=False, soft_wrap=True
        )
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        super().__exit__()

    def _refresh(self) -> None:
        failed = self.counts["failed"] + self.counts["diverged"] + self.counts["lost"]
        text = f"{self.counts['done']} done, {len(self.running)} running, {failed} failed"
        self._bar.update(self._task, completed=self.finished_count, description=text, left=self.time_left())

    def started(self, job: Job) -> None:
        super().started(job)
        self._refresh()

    def finished(self, job: Job, record: dict[str, Any]) -> None:
        super().finished(job, record)
        self._refresh()

    def lost(self, job: Job, reason: str) -> None:
        super().lost(job, reason)
        self._refresh()


def make_listener(jobs: Sequence[Job], mirror: Any, say: Say, interactive: bool, work: Path | None = None) -> Progress:
    """`work`: the work folder, for the heartbeat and the logs of `bench.live`; without it there are none."""
    live = Live(work, len(jobs)) if work is not None else None
    return (BarProgress if interactive else Progress)(jobs, mirror, say, live)
