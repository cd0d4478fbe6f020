"""A full disk, a folder that may only be read, and a file system that becomes read-only while cells run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import load_records
from faults.commands import INLINE, Command, leftovers, outcomes, record_bytes, suite_text, until, write_suite

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="mounts file systems")]

SUITE = suite_text("[erm, gce, elr]", noises="[none, symmetric@0.5]", seeds="2", more="resources: {checkpoint_seconds: 0}\n")
CELLS = 12
SLOW = suite_text("[erm, {method: ./slow.py, params: {seconds: 0.3}}, gce]", seeds="2", epochs=3)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"may not mount a file system here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that gives a disk of so many bytes, as `mount -o size=` takes them."""
    mounted = []

    def make(size: str) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=False)


def fill(disk: Path, left: int) -> Path:
    """A file that leaves `left` bytes."""
    status = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(0, status.f_bavail * status.f_frsize - left)))
    return disk / "filler"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = write_suite(tmp_path_factory.mktemp("undisturbed"), SUITE)
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    assert run.finish() == 0, run.text
    return outcomes(folder / "results" / "tiny")


@pytest.mark.parametrize("left", [0, 24 << 10, 60 << 10])
def test_a_disk_that_fills_up_loses_what_it_cannot_hold_and_says_so(
    tmp_path: Path, disk: Callable[[str], Path], undisturbed: dict[str, str], left: int
) -> None:
    """Noise artefacts, checkpoints, records and tables all compete for what is left."""
    folder = write_suite(tmp_path / "suite", SUITE)
    place = disk("4m")
    filler = fill(place, left)
    words = ("run", "tiny.yaml", *INLINE, "--results", str(place / "results"))
    run = Command(folder, *words)
    assert run.finish() == 3, run.text
    assert "No space left on device" in run.lines[-1] and "Traceback" not in run.text, run.text
    results = place / "results" / "tiny"
    found = outcomes(results) if results.exists() else {}
    assert found.items() <= undisturbed.items() and len(found) < CELLS, "what is there is whole and right"
    assert leftovers(place) == []
    before = record_bytes(results)

    filler.unlink()
    again = Command(folder, *words)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: {CELLS} done; ran {CELLS - len(found)} now", again.text
    assert before.items() <= record_bytes(results).items() and outcomes(results) == undisturbed


def test_no_room_for_checkpoints_or_noise_is_a_warning(
    tmp_path: Path, disk: Callable[[str], Path], undisturbed: dict[str, str]
) -> None:
    """They lie on the full disk, the records do not."""
    folder = write_suite(tmp_path / "suite", SUITE)
    place = disk("16k")
    results = folder / "results" / "tiny"
    results.mkdir(parents=True)
    (results / ".work").symlink_to(place)
    filler = place / "filler"
    for cell in undisturbed:
        (place / f"{cell}.lock").touch()  # these are empty but need a name
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    run = Command(folder, "run", "tiny.yaml", *INLINE)
    assert run.finish() == 0, run.text
    assert run.lines[-1] == f"tiny: {CELLS} done; ran {CELLS} now"
    assert outcomes(results) == undisturbed
    for record in load_records(results).values():
        checkpoint, noise = sorted(record["warnings"], key=lambda text: "noise" in text)
        assert "no checkpoint could be written (No space left on device)" in checkpoint
        assert "the noise artefact" in noise and "could not be kept (No space left on device)" in noise


def test_no_room_for_a_row_of_the_mirror_is_a_warning(tmp_path: Path, disk: Callable[[str], Path], monkeypatch: Any) -> None:
    from test_track import make_record

    from bench.track import Mirror, default_artifacts, default_uri

    place = disk("4m")
    mirror = Mirror.open(default_uri(place), "tiny", default_artifacts(place))
    records = [make_record(seed, epochs=300) for seed in range(4)]
    assert mirror.log(records[0])
    filler = fill(place, 0)
    assert not any(mirror.log(record) for record in records[1:])
    assert mirror.failures == 3 and mirror.warning is not None and "bench sync" in mirror.warning
    filler.unlink()
    again = Mirror.open(default_uri(place), "tiny", default_artifacts(place))
    assert again.rebuild(records) == 3 and again.rebuild(records) == 0


def test_a_store_without_room_is_a_warning_and_sync_makes_it_later(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    folder = write_suite(tmp_path / "suite", suite_text("[erm]", seeds="1", epochs=1))
    place = disk("600k")  # enough for the records and their tables, not for a database
    words = ("tiny.yaml", "--results", str(place / "results"))
    run = Command(folder, "run", *words, "--executor", "inline")
    assert run.finish() == 0, run.text
    (warning,) = [line for line in run.lines if line.startswith("warning: cannot use the MLflow store")]
    assert "records are complete without MLflow" in warning
    refused = Command(folder, "sync", *words)
    assert refused.finish() == 3 and refused.lines[-1].startswith("error: cannot use the MLflow store"), refused.text
    subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True)
    sync = Command(folder, "sync", *words)
    assert sync.finish() == 0 and sync.text == "1 of 1 records added to the mirror\n", sync.text


# -- read-only -------------------------------------------------------------------------------------------------------
def test_results_that_may_only_be_read(tmp_path: Path) -> None:
    folder = write_suite(tmp_path / "suite", SLOW)
    results = folder / "results"
    assert Command(folder, "run", "tiny.yaml", *INLINE, "--only", "method=erm").finish() == 0
    before = record_bytes(results / "tiny")
    mount("--bind", str(results), str(results))
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(results)], check=True)
        run = Command(folder, "run", "tiny.yaml", *INLINE)
        assert run.finish() == 3, run.text
        assert run.lines[-1] == (
            f"error: cannot write to the results folder {results / 'tiny'}: Read-only file system; "
            "choose another with --results DIR"
        )
        status = Command(folder, "status", "tiny.yaml", "--json")
        assert status.finish() == 1 and json.loads(status.text)["counts"] == {"done": 2, "missing": 4}
        table = Command(folder, "table", "tiny.yaml")
        assert table.finish() == 0 and "not run" in table.text
        assert record_bytes(results / "tiny") == before
    finally:
        subprocess.run(["umount", str(results)], check=True)
    last = Command(folder, "run", "tiny.yaml", *INLINE)
    assert last.finish() == 0 and last.lines[-1] == "tiny: 6 done; ran 4 now"
    assert before.items() <= record_bytes(results / "tiny").items()


def test_results_that_become_read_only_while_cells_run(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    folder = write_suite(tmp_path / "suite", SLOW)
    place = disk("4m")
    (tmp_path / "work").mkdir()
    (place / "tiny").mkdir()
    (place / "tiny" / ".work").symlink_to(tmp_path / "work")  # its locks are held open, and would forbid the change
    words = ("run", "tiny.yaml", *INLINE, "--results", str(place))
    run = Command(folder, *words)
    until(lambda: "[2/6]" in run.text)
    until(lambda: subprocess.run(["mount", "-o", "remount,ro", str(place)], capture_output=True, check=False).returncode == 0)
    assert run.finish() == 3, run.text
    assert "Read-only file system" in run.lines[-1] and "Traceback" not in run.text, run.text
    assert 2 <= len(load_records(place / "tiny")) < 6
    before = record_bytes(place / "tiny")
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    again = Command(folder, *words)
    assert again.finish() == 0 and again.lines[-1] == f"tiny: 6 done; ran {6 - len(before)} now", again.text
    assert before.items() <= record_bytes(place / "tiny").items()
