"""Under Ray: kill -9 of a trial's process, of the raylet, of the driver, of the whole group; Ctrl-C twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from faults.commands import Started, marked, outcomes, record_bytes, relatives, started, suite_text, until, write_suite

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

CELLS = 8
SUITE = suite_text(
    "[{method: ./slow.py, params: {seconds: 0.25}}]", noises="[none, symmetric@0.5]", seeds="4", epochs=4,
    more="resources: {checkpoint_seconds: 0}\n",
)  # fmt: skip
RAY = ("run", "tiny.yaml", "--tracking", "none")
WORKER = "ray::ImplicitFu"  # the kernel keeps 15 letters


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process gives, one cell after another: Ray has to give the same."""
    folder = write_suite(tmp_path_factory.mktemp("undisturbed"), SUITE)
    with started(folder, *RAY, "--executor", "inline") as run:
        assert run.finish() == 0, run.text
    return outcomes(folder / "results" / "tiny")


def check(results: Path, before: dict[str, bytes], expected: dict[str, str]) -> dict[str, bytes]:
    after = record_bytes(results)
    assert before.items() <= after.items(), "a finished record was lost or altered"
    assert outcomes(results).items() <= expected.items()
    return after


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def gone(run: Started, seconds: float = 60) -> None:
    """No process of the run is left, agents of Ray's dashboard apart, which notice a while later that they are alone."""

    def others() -> list[str]:
        names = [name for _, name in marked(f"BENCH_TEST_RUN={run.output}")]
        return [name for name in names if not name.startswith(("ray::Dashboard", "ray::RuntimeEnv"))]

    until(lambda: not others(), seconds, 0.5)


def test_trials_raylet_and_driver_are_killed_and_nothing_is_lost(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """One run, four starts: whatever is killed, the next one goes on, and the last one ends with all cells done."""
    folder = write_suite(tmp_path / "suite", SUITE)
    results, draw = folder / "results" / "tiny", random.Random(3)

    # The driver, and with it the local cluster, dies while cells run.
    with started(folder, *RAY) as run:
        run.wait_for("[1/8]")
        time.sleep(draw.uniform(0.0, 1.0))
        os.kill(run.process.pid, signal.SIGKILL)
        assert run.finish() == -signal.SIGKILL
        gone(run)
    before = check(results, {}, undisturbed)
    assert 0 < len(before) < CELLS

    # The whole process group.
    with started(folder, *RAY) as run:
        run.wait_for("[1/")
        time.sleep(draw.uniform(0.0, 0.5))
        os.killpg(run.process.pid, signal.SIGKILL)
        run.finish()
        gone(run)
    before = check(results, before, undisturbed)

    # A trial's process, twice, then the raylet with all its workers: the run itself goes on.
    for name in sorted(before)[: max(0, len(before) - CELLS // 2)]:  # enough cells to run have to be left
        (results / name).unlink()
        del before[name]
    with started(folder, *RAY) as run:
        until(lambda: relatives(run, WORKER) or run.process.poll() is not None, 240, 0.1)
        until(lambda: any((results / ".work").glob("*.ckpt")), 240, 0.05)
        kill(relatives(run, WORKER)[:1])
        run.wait_for("[1/")
        kill([*relatives(run, "raylet"), *relatives(run, WORKER)])
        assert run.finish(300) == 0, run.text
        assert run.lines[-1] == f"tiny: {CELLS} done; ran {CELLS - len(before)} now", run.text
        assert "Traceback" not in run.text
    check(results, before, undisturbed)
    assert outcomes(results) == undisturbed
    assert not (results / ".work" / "ray").exists(), "what killed drivers left is swept"


def test_interrupted_twice_it_leaves_at_once_and_leaves_nothing_running(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    folder = write_suite(tmp_path / "suite", SUITE)
    results = folder / "results" / "tiny"
    with started(folder, *RAY) as run:
        run.wait_for("[1/8]")
        os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(0.3)
        os.killpg(run.process.pid, signal.SIGINT)
        begin = time.monotonic()
        assert run.finish(60) == 130, run.text
        assert time.monotonic() - begin < 60 and run.lines[-1].startswith("interrupted"), run.text
        gone(run)
    found = outcomes(results)
    assert 0 < len(found) < CELLS and found.items() <= undisturbed.items()


def test_a_run_in_the_background_is_stopped_by_kill(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """A script's `bench run ... &` ignores Ctrl-C; `kill PID` ends it like Ctrl-C, without Ray's stack trace."""
    folder = write_suite(tmp_path / "suite", SUITE)
    results = folder / "results" / "tiny"
    with started(folder, *RAY, prefix=("sh", "-c", "trap '' INT; exec \"$@\"", "sh")) as run:
        run.wait_for("[1/8]")
        os.kill(run.process.pid, signal.SIGINT)  # ignored
        os.kill(run.process.pid, signal.SIGTERM)
        assert run.finish(60) == 130, run.text
        assert run.lines[-1].startswith("interrupted: finished cells are safe") and "SIGTERM" not in run.text, run.text
        gone(run)
    found = outcomes(results)
    assert 0 < len(found) < CELLS and found.items() <= undisturbed.items()
