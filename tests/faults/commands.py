"""Commands in processes of their own that can be killed, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.records import load_records, record_files

ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(sys.executable).parent / "bench"
INLINE = ("--executor", "inline", "--tracking", "none")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}

#: a sound method that takes its time, so that there is something to disturb
SLOW = '''\
import os
import time
from pathlib import Path

from bench.method import LossMethod
from bench.ops.losses import cross_entropy


class Slow(LossMethod):
    """Cross-entropy with a pause before each epoch; notes each epoch that ran in a folder, if it is given one."""

    slug = "slow"
    seconds: float = 0.2
    notes: str = ""
    tag: int = 0

    def loss(self, logits, batch):
        return cross_entropy(logits, batch.labels)

    def epoch(self, epoch):
        time.sleep(self.seconds)
        super().epoch(epoch)
        if self.notes:
            Path(self.notes, f"{self.task.current_epoch}-{os.getpid()}-{time.monotonic_ns()}").touch()
'''


def suite_text(methods: str = "[erm, gce]", *, noises: str = "[none]", seeds: str = "2", epochs: int = 3, more: str = "") -> str:
    return (
        f"datasets: digits\nnoises: {noises}\nmethods: {methods}\nseeds: {seeds}\nmodel: {{name: mlp, widths: [16]}}\n"
        f"training: {{epochs: {epochs}}}\nprotocol: {{last_k: 2}}\n{more}"
    )


def write_suite(folder: Path, text: str, name: str = "tiny") -> Path:
    """A folder with `<name>.yaml` and the slow method."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slow.py").write_text(SLOW)
    (folder / f"{name}.yaml").write_text(text)
    return folder


# -- outcomes --------------------------------------------------------------------------------------------------------
def outcomes(folder: Path) -> dict[str, str]:
    """By cell, all of its record that has to be the same bits however often the run was disturbed. Raises for a bad record."""
    parts = ("cell", "status", "reason", "metrics", "detail", "curve", "noise", "data", "watched")
    cost = ("networks", "forward_images", "backward_images")
    return {
        identity: json.dumps(
            [record.get(part) for part in parts] + [(record["cost"] or {}).get(name) for name in cost], sort_keys=True
        )
        for identity, record in load_records(folder).items()
    }


def record_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in record_files(folder)}


def mirrored_runs(database: Path) -> list[tuple[str, int, int]]:
    """(status, runs, different records) of the runs in an MLflow database that stand for records and are not deleted."""
    query = (
        "select status, count(*), count(distinct value) from runs join tags using (run_uuid) "
        "where lifecycle_stage = 'active' and key = 'bench.checksum' group by status"
    )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def leftovers(folder: Path) -> list[str]:
    """Files that a writer left half-written; what a run says about itself while it goes on is none of them."""
    return [path.name for path in folder.rglob(".*.tmp") if "running" not in path.parts]


# -- forked commands -------------------------------------------------------------------------------------------------
def _run(arguments: list[str], folder: str, output: str) -> None:
    """In the forked process: lead a group of its own, as a shell's job does, and be the command."""
    os.setsid()
    os.chdir(folder)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    from bench.cli import main

    main.main(arguments, prog_name="bench")


class Command:
    """`bench arguments` in `folder`, forked from a process that has imported everything."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        context = _context()
        handle, self._output = _scratch(folder)
        os.close(handle)
        self._process = context.Process(target=_run, args=(list(arguments), str(folder), self._output))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def signal(self, number: int = signal.SIGKILL) -> None:
        """To the whole group, as a terminal or `kill -9 -PID` does; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)  # before it leads its group
            os.killpg(self.pid, number)

    def wait(self, seconds: float = 300) -> int | None:
        """Exit code (minus the signal that ended it), None while it runs."""
        self._process.join(seconds)
        return self._process.exitcode

    def finish(self, seconds: float = 300) -> int:
        code = self.wait(seconds)
        assert code is not None, f"still running after {seconds} s: {self.text}"
        return code

    @property
    def text(self) -> str:
        return Path(self._output).read_text()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def _scratch(folder: Path) -> tuple[int, str]:
    import tempfile

    return tempfile.mkstemp(dir=folder, prefix="output-")


def _context() -> Any:
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.warm"])
    with pytest.MonkeyPatch.context() as patch:  # the server inherits it when the first command is started
        patch.setenv("PYTHONPATH", path)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    return context


def until(condition: Callable[[], Any], seconds: float = 240, pause: float = 0.02) -> Any:
    """What `condition` returns as soon as it is true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause)
    return found


# -- started commands, for what needs a process that was never forked --------------------------------------------------
@dataclass
class Started:
    """`bench arguments` as a user starts it: slower by the imports, but Ray works in it."""

    process: subprocess.Popen[str]
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def finish(self, seconds: float = 240) -> int:
        return self.process.wait(seconds)

    def count(self, beginning: str) -> int:
        return sum(line.startswith(beginning) for line in self.lines)

    def wait_for(self, beginning: str, number: int = 1, seconds: float = 240) -> None:
        until(lambda: self.count(beginning) >= number or self.process.poll() is not None, seconds, 0.1)
        assert self.count(beginning) >= number, self.text


@contextlib.contextmanager
def started(folder: Path, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> Iterator[Started]:
    """The command leads a group of its own; that group, and what descends from it, is killed at the end."""
    handle, output = _scratch(folder)
    mark = f"BENCH_TEST_RUN={output}"
    process = subprocess.Popen(
        [*prefix, str(BENCH), *arguments], cwd=folder, stdout=handle, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT, "PYTHONUNBUFFERED": "1", "BENCH_TEST_RUN": output, **environment},
    )  # fmt: skip
    os.close(handle)
    try:
        yield Started(process, Path(output))
    finally:
        for pid, _ in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(30)


def marked(mark: str) -> list[tuple[int, str]]:
    """(pid, name) of the living processes whose environment holds `mark`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                stat = (entry / "stat").read_text()
                if stat.rsplit(")", 1)[1].split()[0] != "Z":
                    found.append((int(entry.name), stat[stat.index("(") + 1 : stat.rindex(")")]))
        except OSError:
            continue
    return found


def relatives(run: Started, name: str) -> list[int]:
    """Processes of that name (as the kernel has it, 15 letters) that descend from the command."""
    return [pid for pid, found in marked(f"BENCH_TEST_RUN={run.output}") if found.startswith(name)]
