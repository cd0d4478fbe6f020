"""Ctrl-C: once finishes what is being written and ends with 130; twice leaves at once. Law 9."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.interrupts import finishing, handler_kept, stoppable
from bench.records import load_records
from faults.commands import INLINE, Command, outcomes, record_bytes, suite_text, until, write_suite

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="forks and signals groups")]

SLOW = suite_text(
    "[{method: ./slow.py, params: {seconds: 0.3}}, erm]", seeds="3", epochs=3, more="resources: {checkpoint_seconds: 0}\n"
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = write_suite(tmp_path_factory.mktemp("undisturbed"), SLOW)
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    assert run.finish() == 0, run.text
    return outcomes(folder / "results" / "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_says_how_to_go_on_and_going_on_gives_the_same(
    tmp_path: Path, undisturbed: dict[str, str], number: signal.Signals
) -> None:
    folder = write_suite(tmp_path / "suite", SLOW)
    results = folder / "results" / "tiny"
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    until(lambda: "[1/6]" in run.text and any((results / ".work").glob("*.ckpt")))
    os.kill(run.pid, number)
    assert run.finish() == 130, run.text
    count = len(load_records(results))
    assert 0 < count < 6
    assert run.lines[-2:] == [
        f"tiny: {count} done, {6 - count} missing; interrupted",
        "interrupted: finished cells are safe; continue with: bench run tiny.yaml --executor inline --tracking none",
    ]
    assert "Traceback" not in run.text
    assert (results / "table.md").exists(), "the table shows what there is"
    before = record_bytes(results)
    again = Command(folder, "run", "tiny.yaml", *INLINE)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: 6 done; ran {6 - count} now"
    assert before.items() <= record_bytes(results).items() and outcomes(results) == undisturbed


@pytest.mark.slow
def test_twice_leaves_at_once(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    folder = write_suite(tmp_path / "suite", SLOW)
    results = folder / "results" / "tiny"
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    until(lambda: "[1/6]" in run.text)
    run.signal(signal.SIGINT)
    until(lambda: run.wait(0.05) is not None or "\n\n" in run.text or run.signal(signal.SIGINT))
    assert run.finish() == 130, run.text
    assert "Traceback" not in run.text and run.lines[-1].startswith("interrupted"), run.text
    found = outcomes(results)
    assert 0 < len(found) < 6 and found.items() <= undisturbed.items()
    assert Command(folder, "run", "tiny.yaml", *INLINE).finish() == 0 and outcomes(results) == undisturbed


@pytest.fixture
def default_handler() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_record_that_is_being_written_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_handler: None
) -> None:
    from test_schedule import Log, make_job

    from bench.schedule import run_jobs

    real = os.replace

    def interrupted(source: Any, target: Any) -> None:
        if str(target).endswith(f"{job.id}.json"):
            ctrl_c()
        real(source, target)

    job = make_job(tmp_path)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job, make_job(tmp_path, 1)], executor="inline", listener=Log())
    monkeypatch.undo()
    assert [record["status"] for record in load_records(tmp_path / "suite").values()] == ["done"]
    assert not [path for path in (tmp_path / "work").iterdir() if path.suffix == ".ckpt"]


def test_a_mirror_row_that_is_being_written_is_written(tmp_path: Path, default_handler: None) -> None:
    from test_schedule import Log, make_job

    from bench.schedule import run_jobs

    written = []

    class Mirrored(Log):
        def finished(self, job: Any, record: dict[str, Any]) -> None:
            ctrl_c()
            written.append(job.label)

    with pytest.raises(KeyboardInterrupt):
        run_jobs([make_job(tmp_path, i) for i in range(3)], executor="inline", listener=Mirrored())
    assert written == ["job 0"]


def test_the_second_interrupt_does_not_wait(default_handler: None) -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), finishing():
        ctrl_c()
        reached.append("after the first")
        ctrl_c()
        reached.append("after the second")
    assert reached == ["after the first"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_acts_like_ctrl_c_where_a_run_asks_for_it_and_nowhere_else(default_handler: None) -> None:
    outside, reached = signal.getsignal(signal.SIGTERM), []
    with pytest.raises(KeyboardInterrupt), stoppable(), finishing():
        os.kill(os.getpid(), signal.SIGTERM)
        reached.append("the end of what is written")
    assert reached and signal.getsignal(signal.SIGTERM) is outside
    with stoppable():
        with handler_kept():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library does while it starts
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    with handler_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "a program of somebody else's keeps what it wants"
    signal.signal(signal.SIGTERM, outside)


def test_without_an_interrupt_nothing_changes(default_handler: None) -> None:
    with finishing():
        inside = signal.getsignal(signal.SIGINT)
        with finishing():  # the inner one leaves it to the outer one
            assert signal.getsignal(signal.SIGINT) is inside
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    thread = threading.Thread(target=lambda: finishing().__enter__())
    thread.start()
    thread.join()
    assert not thread.is_alive()
