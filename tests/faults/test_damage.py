"""Files that are cut off, damaged or mixed up between two runs; time that runs backwards; code that changed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records import RecordError, load_record, load_records, record_files
from faults.commands import INLINE, SLOW, Command, outcomes, record_bytes, suite_text, until, write_suite

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks")]

SUITE = suite_text("[erm, gce]", noises="[none, symmetric@0.5]", seeds="2", epochs=4, more="resources: {checkpoint_seconds: 0}\n")
CELLS = 8


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_suite(tmp_path_factory.mktemp("first"), SUITE)
    assert Command(folder, "run", "tiny.yaml", *INLINE).finish() == 0
    return folder


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "empty": lambda content, draw: b"",
    "cut off": lambda content, draw: content[: draw.randrange(1, len(content))],
    "zeros at the end": lambda content, draw: (n := draw.randrange(1, len(content))) and content[:n] + bytes(len(content) - n),
    "a flipped bit": lambda content, draw: (n := draw.randrange(len(content))) * b"" + content[:n]
    + bytes([content[n] ^ (1 << draw.randrange(8))]) + content[n + 1 :],
    "written twice": lambda content, draw: content + content,
    "another file": lambda content, draw: b"\x89PNG\r\n\x1a\n" + content[8:],
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_records_are_refused_kept_and_replaced_when_told_to(first: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(first, tmp_path / "copy"))
    results, expected = folder / "results" / "tiny", outcomes(first / "results" / "tiny")
    draw = random.Random(damage)
    bad, missing, *sound = draw.sample(record_files(results), CELLS)
    bad.write_bytes(DAMAGES[damage](bad.read_bytes(), draw))
    missing.unlink()
    with pytest.raises(RecordError, match=bad.name):
        load_record(bad)
    before = record_bytes(results)

    run = Command(folder, "run", "tiny.yaml", *INLINE)
    assert run.finish() == 1, run.text
    assert run.lines[0] == f"tiny: {CELLS} cells; {CELLS - 2} done, 1 corrupt; 1 to run"
    assert f"tiny: 1 corrupt, {CELLS - 1} done; ran 1 now" in run.lines
    assert any(line.startswith(f"error: corrupt record {bad}: ") for line in run.lines)
    assert before.items() <= record_bytes(results).items(), "nothing that is there is touched, the damaged one neither"

    bad.unlink()  # as the message says
    again = Command(folder, "run", "tiny.yaml", *INLINE)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: {CELLS} done; ran 1 now", again.text
    assert outcomes(results) == expected
    assert {path.name: before[path.name] for path in sound}.items() <= record_bytes(results).items()


def test_damaged_checkpoints_noise_and_plans_cost_time_alone(first: Path, tmp_path: Path) -> None:
    """Everything beside the records may be damaged: what it is good for is made again, with the same bits."""
    folder = write_suite(tmp_path / "suite", SUITE)
    results, expected = folder / "results" / "tiny", outcomes(first / "results" / "tiny")
    draw = random.Random(11)
    spoilt = {".ckpt": 0, ".npz": 0, "plan.json": 0}
    for _ in range(60):
        run = Command(folder, "run", "tiny.yaml", *INLINE)
        until(lambda: any((results / ".work").glob("*.ckpt")) or run.wait(0) is not None, pause=0.002)  # noqa: B023
        run.signal()
        if run.finish() == 0:
            break
        for path in [*results.glob("plan.json"), *results.glob(".work/*.ckpt"), *results.glob(".work/noise/*.npz")]:
            path.write_bytes(draw.choice(list(DAMAGES.values()))(path.read_bytes(), draw))
            spoilt[path.name if path.suffix == ".json" else path.suffix] += 1
        shutil.copy(first / "results" / "tiny" / "plan.json", results / "plan.json")
        if min(spoilt.values()) >= 3:
            break
    last = Command(folder, "run", "tiny.yaml", *INLINE)
    assert last.finish() == 0 and min(spoilt.values()) > 0, (spoilt, last.text)
    assert outcomes(results) == expected
    assert Command(folder, "status", "tiny.yaml").finish() == 0


def test_a_half_copied_results_folder_is_completed(first: Path, tmp_path: Path) -> None:
    """Merging machines is copying files: what was cut off in the copy is named, and a second copy heals it."""
    folder = write_suite(tmp_path / "suite", SUITE)
    results = folder / "results" / "tiny"
    results.mkdir(parents=True)
    paths = record_files(first / "results" / "tiny")
    for path in paths[:3]:
        shutil.copy(path, results)
    (results / paths[3].name).write_bytes(paths[3].read_bytes()[:1000])
    assert Command(folder, "run", "tiny.yaml", *INLINE).finish() == 1
    for path in paths:
        shutil.copy(path, results)
    last = Command(folder, "run", "tiny.yaml", *INLINE)
    assert last.finish() == 0 and last.lines[-1] == f"tiny: {CELLS} done; ran 0 now", last.text
    assert outcomes(results) == outcomes(first / "results" / "tiny")


# -- time ------------------------------------------------------------------------------------------------------------
#: every look at the wall clock is an hour before the last one; the clock that only measures is left alone
CLOCK = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long behind;
static void step(time_t *seconds) { *seconds -= 3600 * ++behind; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, t);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) step(&t->tv_sec);
    return code;
}
int gettimeofday(struct timeval *t, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"""


def test_a_clock_that_runs_backwards_moves_nothing(first: Path, tmp_path: Path) -> None:
    from faults.commands import started

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the false clock")
    folder = write_suite(tmp_path / "suite", SUITE + "", name="tiny")
    (tmp_path / "clock.c").write_text(CLOCK)
    library = tmp_path / "clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "clock.c", "-ldl"], check=True)
    seen = subprocess.run(
        [sys.executable, "-c", "import time; a = time.time(); print(time.time() < a - 3000)"], capture_output=True, text=True,
        check=True, env={"LD_PRELOAD": str(library)},
    )  # fmt: skip
    assert seen.stdout == "True\n"
    results = folder / "results" / "tiny"
    with started(folder, "run", "tiny.yaml", "--executor", "inline", LD_PRELOAD=str(library)) as run:
        assert run.finish() == 0, run.text
    assert run.lines[-1] == f"tiny: {CELLS} done; ran {CELLS} now" and "warning" not in run.text
    assert outcomes(results) == outcomes(first / "results" / "tiny")
    records = load_records(results)
    assert all(record["provenance"]["finished"] < record["provenance"]["started"] for record in records.values())
    assert all(0 < record["cost"]["train_seconds"] < 600 for record in records.values()), "measured with another clock"
    before = record_bytes(results)
    again = Command(folder, "run", "tiny.yaml", *INLINE)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: {CELLS} done; ran 0 now"
    assert record_bytes(results) == before


# -- code ------------------------------------------------------------------------------------------------------------
def test_code_that_changed_keeps_records_and_drops_checkpoints(tmp_path: Path) -> None:
    """A record stays what it is (its code is in it, `bench show` compares), a checkpoint of other code is not gone on from."""
    text = suite_text("[{method: ./slow.py, params: {seconds: 0.3}}]", seeds="3", more="resources: {checkpoint_seconds: 0}\n")
    folder = write_suite(tmp_path / "suite", text)
    results = folder / "results" / "tiny"
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    until(lambda: "[1/3]" in run.text and any((results / ".work").glob("*.ckpt")))
    run.signal()
    run.finish()
    before = record_bytes(results)
    assert 0 < len(before) < 3
    changed = SLOW.replace("return cross", "return 2 * cross")
    (folder / "slow.py").write_text(changed)

    again = Command(folder, "run", "tiny.yaml", *INLINE)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: 3 done; ran {3 - len(before)} now", again.text
    assert before.items() <= record_bytes(results).items(), "a record is not altered because its method was"
    records = load_records(results)
    old = {name.removesuffix(".json") for name in before}
    codes = {identity in old: record["provenance"]["code"] for identity, record in records.items()}
    assert codes[True] != codes[False]
    assert any("was made by other code" in line for line in again.lines if line.startswith("warning: "))
    fresh = write_suite(tmp_path / "fresh", text)
    (fresh / "slow.py").write_text(changed)
    assert Command(fresh, "run", "tiny.yaml", *INLINE).finish() == 0
    expected = outcomes(fresh / "results" / "tiny")
    assert {i: o for i, o in outcomes(results).items() if i not in old}.items() <= expected.items()
