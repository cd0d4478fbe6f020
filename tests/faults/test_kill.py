"""kill -9 at random moments: nothing that was finished is lost, and in the end all is as after an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from faults.commands import Command, leftovers, mirrored_runs, outcomes, record_bytes, suite_text, until, write_suite

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="forks and kills groups"),
]

CELLS = 12
SUITE = suite_text(
    "[erm, co-teaching, elr]", noises="[none, symmetric@0.5]", seeds="2", epochs=4, more="resources: {checkpoint_seconds: 0}\n"
)
INLINE = ("run", "tiny.yaml", "--executor", "inline")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the suite and an empty MLflow store, which takes longer to make than the suite to run."""
    folder = write_suite(tmp_path_factory.mktemp("empty"), SUITE)
    assert Command(folder, "sync", "tiny.yaml").finish(300) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(empty: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], str, float]:
    """Outcomes and table of the suite when nobody disturbs it, and the seconds that two of its cells take."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(empty, folder, dirs_exist_ok=True)
    run = Command(folder, *INLINE)
    until(lambda: "[1/" in run.text or "[ 1/" in run.text, pause=0.005)
    begin = time.monotonic()
    until(lambda: f"[{CELLS}/{CELLS}]" in run.text, 120)
    seconds = 2 * (time.monotonic() - begin) / CELLS
    assert run.finish() == 0, run.text
    results = folder / "results" / "tiny"
    found = outcomes(results)
    assert len(found) == CELLS
    return found, (results / "table.md").read_text(), seconds


def check(results: Path, before: dict[str, bytes], expected: dict[str, str]) -> dict[str, bytes]:
    """After a kill: every record there is can be read and says what it should, and none from before has changed."""
    after = record_bytes(results)
    assert {name: after.get(name) for name in before} == before, "a finished record was lost or altered"
    found = outcomes(results) if results.exists() else {}
    assert found == {identity: expected[identity] for identity in found}
    return after


def killed_until_done(folder: Path, draw: random.Random, seconds: float, expected: dict[str, str]) -> tuple[int, int]:
    """Run the suite again and again, killing each run at a random moment, until all records are there.

    One run in six is killed before it has a plan, the others after zero to three more cells, and up to `seconds` (what two cells
    take) later. One time in four two runs go on at once. Returns kills, and kills that left a checkpoint.
    """
    results = folder / "results" / "tiny"
    before: dict[str, bytes] = {}
    kills = resumable = 0
    while len(before) < CELLS:
        runs = [Command(folder, *INLINE) for _ in range(2 if draw.random() < 0.25 else 1)]
        for run in runs:
            lines = 0 if draw.random() < 1 / 6 else 1 + draw.randrange(4)
            until(lambda: len(run.lines) >= lines or run.wait(0) is not None, pause=0.005)  # noqa: B023
            time.sleep(draw.uniform(0.0, seconds))
            run.signal()
            code = run.finish()
            assert code in (-9, 0), run.text
            kills += code == -9
        before = check(results, before, expected)
        resumable += any((results / ".work").glob("*.ckpt"))
    return kills, resumable


def test_at_least_fifty_kills_lose_nothing(
    tmp_path: Path, empty: Path, undisturbed: tuple[dict[str, str], str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    expected, table, seconds = undisturbed
    draw = random.Random(20240607)
    begin, kills, resumable, rounds = time.monotonic(), 0, 0, 0
    while kills < 50:
        folder = shutil.copytree(empty, tmp_path / str(rounds))
        more, left = killed_until_done(folder, draw, seconds, expected)
        results = folder / "results" / "tiny"
        before = record_bytes(results)
        last = Command(folder, *INLINE)
        assert last.finish() == 0, last.text
        assert last.lines[-1] == f"tiny: {CELLS} done; ran 0 now"
        assert check(results, before, expected) == before and outcomes(results) == expected
        assert (results / "table.md").read_text() == table
        mirrored(folder)
        kills, resumable, rounds = kills + more, resumable + left, rounds + 1
        shutil.rmtree(folder)
    assert resumable >= kills // 10, "most kills hit nothing: the moments do not suit this machine"
    with capsys.disabled():
        print(
            f"\n{kills} kills in {rounds} rounds of {CELLS} cells, {time.monotonic() - begin:.0f} s; {resumable} of them "
            f"left a checkpoint to go on from; two cells took {seconds:.1f} s"
        )


def mirrored(folder: Path) -> None:
    """`bench sync` repairs the MLflow mirror: one finished run for each record, and nothing half-written."""
    sync = Command(folder, "sync", "tiny.yaml")
    assert sync.finish() == 0, sync.text
    assert mirrored_runs(folder / "results" / "mlflow.db") == [("FINISHED", CELLS, CELLS)]


def test_a_mirror_whose_creation_is_killed_is_made_anew(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite", SUITE)
    begin = time.monotonic()
    Command(folder, "sync", "tiny.yaml").finish(300)
    seconds, draw = time.monotonic() - begin, random.Random(5)
    shutil.rmtree(folder / "results")
    for _ in range(8):
        sync = Command(folder, "sync", "tiny.yaml")
        time.sleep(draw.uniform(0.2, 0.95) * seconds)
        sync.signal()
        assert sync.finish() in (-9, 0), sync.text
    last = Command(folder, "sync", "tiny.yaml")
    assert last.finish() == 0 and last.text == "0 of 0 records added to the mirror\n", last.text


def test_what_killed_runs_leave_half_written_is_swept(tmp_path: Path) -> None:
    """Only what is old: a young one may belong to a run that is going on."""
    folder = write_suite(tmp_path / "suite", suite_text("[erm]", seeds="1", epochs=1))
    work = folder / "results" / "tiny" / ".work"
    work.mkdir(parents=True)
    for place, name in ((work, ".a.ckpt.x.tmp"), (work.parent, ".b.json.y.tmp"), (work.parent, ".young.json.z.tmp")):
        (place / name).write_text("half")
        if "young" not in name:
            os.utime(place / name, (time.time() - 7200,) * 2)
    assert Command(folder, "run", "tiny.yaml", "--executor", "inline", "--tracking", "none").finish() == 0
    assert leftovers(folder) == [".young.json.z.tmp"]
