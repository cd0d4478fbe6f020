"""The commands of every day: status of what runs, show, doctor, merge, clean, completion, and the help of all commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from finished import finish, made_up_record
from test_cli import INLINE, SMALL, here

from bench import api, cli, live
from bench.api import command_line, read_plan
from bench.cli_completion import commands
from bench.cli_options import guarded
from bench.progress import make_listener
from bench.records import load_record, record_files, record_path, write_record


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with the small suite and made-up records of its eight cells."""
    (tmp_path / "small.yaml").write_text(SMALL)
    finish(tmp_path / "small.yaml", tmp_path / "results")
    return tmp_path


def records(folder: Path, results: str = "results") -> list[Path]:
    return record_files(folder / results / "small")


def jobs_of(folder: Path) -> list[Any]:
    """What a listener needs of the jobs of the small suite."""
    return [SimpleNamespace(id=e.id, label=e.label(), cell=e.cell) for e in read_plan(folder / "small.yaml").entries]


def changed(path: Path, **changes: Any) -> dict[str, Any]:
    """The record at `path`, written again with other values."""
    record = load_record(path)
    made = made_up_record(record["cell"], record["id"], record["suite"], **changes)
    write_record(path.parent, made)
    return made


# -- signs of life -------------------------------------------------------------------------------------------------
def test_status_names_what_runs_with_epoch_rate_and_time_left(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = suite / "results" / "small" / ".work"
    job, other, *_ = jobs_of(suite)
    job.cell = {**job.cell, "training": {**job.cell["training"], "epochs": 10}}
    record_path(work.parent, job.id).unlink()
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: next(clock), time=time.time))
    monkeypatch.setattr(live, "BEAT_SECONDS", 1e6)  # this test writes the heartbeat itself
    with make_listener([job, other], None, lambda line: None, False, work) as progress:
        progress.started(job)  # at 0 (10 was the heartbeat of the start): epochs end at 10 s intervals
        for epoch in range(3):
            progress.epoch(job, epoch, {"test_acc": 0.5})
        progress.live._write()
        facts = json.loads(here(suite, monkeypatch, "status", "small.yaml", "--json").stdout)
        text = here(suite, monkeypatch, "status", "small.yaml").stdout
    cell = facts["running"][job.id]
    assert (cell["epoch"], cell["epochs"], cell["seconds_per_epoch"]) == (3, 10, 10.0)
    assert cell["seconds_left"] == 10 * 7 - 10, "seven epochs of 10 s, and the heartbeat came 10 s after the last one"
    assert facts["counts"] == {"done": 7, "missing": 1} and facts["drivers"][0]["pid"] == os.getpid()
    assert f"{job.id} {job.label}: epoch 3/10, 10 s/epoch, left 60 s" in text
    assert "running   1 (bench run on " in text and text.splitlines()[-1] == "small: next: wait; it is running"
    assert not (work / live.RUNNING).exists(), "a run that ends takes its heartbeat with it"
    assert here(suite, monkeypatch, "status", "small.yaml").stdout.splitlines()[-1] == "small: next: bench run small.yaml"


def test_a_run_that_was_killed_is_told_from_one_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys\nfrom bench.live import Live\nlive = Live(sys.argv[1], 5)\nlive.__enter__()\n"
    code += "live.started('ab', 'x', 3)\nlive._write()\nos._exit(9)"
    subprocess.run([sys.executable, "-c", code, tmp_path], timeout=60, check=False)
    (killed,) = live.drivers(tmp_path)
    assert killed.gone == "its process is gone" and list(killed.cells) == ["ab"] and killed.total == 5
    assert live.running([killed]) == {}

    facts = json.loads(killed.path.read_text())
    own = {**facts, "pid": os.getpid(), "start": live.process_start(os.getpid())}
    for change, gone in (
        ({}, ""),
        ({"start": "1"}, "its process is gone"),  # another process has the number now
        ({"written": facts["written"] - 9999}, ""),  # a clock that was set does not kill a process that is there
        ({"machine": "elsewhere"}, ""),
        ({"machine": "elsewhere", "written": facts["written"] - 9999}, "nothing was heard of it for 2.8 h"),
        ({"machine": "elsewhere", "written": facts["written"] + 9999}, "nothing was heard of it for 2.8 h"),
    ):
        killed.path.write_text(json.dumps({**own, **change}))
        assert live.drivers(tmp_path)[0].gone == gone, change
    for damage in ("", "{", "[]", '{"machine": 1}', json.dumps({**own, "cells": {"a": 1}})):
        killed.path.write_text(damage)
        assert live.drivers(tmp_path)[0].gone.startswith("it cannot be read"), damage
    with live.Live(tmp_path):
        assert [driver.pid for driver in live.drivers(tmp_path)] == [os.getpid()], "a run removes what dead ones left"


def test_heartbeats_that_cannot_be_written_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with live.Live(tmp_path / "file" / "deeper") as beat:
        beat.started("ab", "x", 3)
        beat.epoch("ab", 0, {})
        beat.finished("ab", {"status": "done"})
        beat.epoch("gone", 0, {})
    assert (tmp_path / "file").read_text() == ""


def test_a_log_holds_epochs_warnings_and_the_traceback_and_stays_small(tmp_path: Path) -> None:
    path = live.log_path(tmp_path, "ab")
    record = {
        "status": "failed", "reason": "Boom: \x1b[31mred", "traceback": "Traceback\n  line 1", "warnings": ["odd"],
        "curve": {"epoch": [0, 1, 2], "test_acc": [0.1, 0.25, 0.5], "groups": {"a": [1]}},
    }  # fmt: skip
    with live.Live(tmp_path) as beat:
        beat.started("ab", "digits none erm seed 0", 3)
        beat.epoch("ab", 1, {"test_acc": 0.25, "val_acc": None})
        beat.finished("ab", record)
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert lines == [
        "started: digits none erm seed 0", "epoch 2/3  test_acc 0.25", "epoch 1/3  test_acc 0.1", "epoch 3/3  test_acc 0.5",
        "warning: odd", "failed: Boom: ?[31mred", "Traceback", "   line 1",
    ]  # fmt: skip
    assert live.tail(path, 2)[-1].strip() == "line 1" and live.tail(tmp_path / "none", 3) == []
    for number in range(40):
        live.append_log(path, f"{number} " + "x" * live.LOG_BYTES + "\n" if number == 5 else f"{number}\n" * 3000)
        assert path.stat().st_size <= live.LOG_BYTES
    assert path.read_text().startswith("(earlier lines were dropped)\n") and live.tail(path, 1) == ["39"]


# -- a real run ----------------------------------------------------------------------------------------------------
def test_a_run_leaves_a_log_per_cell_and_show_prints_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("epochs: 1", "epochs: 3"))
    done = here(tmp_path, monkeypatch, "run", "small.yaml", *INLINE, "--only", "method=erm", "--only", "seed=0")
    assert done.exit_code == 0, done.output
    work = tmp_path / "results" / "small" / ".work"
    first, second = records(tmp_path)
    assert sorted(path.stem for path in (work / "logs").iterdir()) == [first.stem, second.stem]
    assert not (work / "running").exists()
    log = live.log_path(work, first.stem).read_text()
    assert [f"epoch {n}/3" in log for n in (1, 2, 3)] == [True] * 3 and log.rstrip().endswith(" done")

    text = here(tmp_path, monkeypatch, "show", first.stem[:12]).output
    assert text.startswith(f"cell {first.stem}  done\n")
    values = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if line.startswith("training.")}
    assert values["training.epochs"] == ["3", "small.yaml:6"] and values["training.momentum"][1] == "class default"
    assert f"log results/small/.work/logs/{first.stem}.log" in text and "epoch 3/3" in text
    assert text.splitlines()[-1].startswith("run it again: bench run small.yaml --only dataset=digits ")
    assert "small.yaml:6" not in here(tmp_path, monkeypatch, "show", first.stem, "--no-origins").output

    full = json.loads(here(tmp_path, monkeypatch, "show", first.stem, "--json", "--full").stdout)
    assert full["record"] == load_record(first) == json.loads(here(tmp_path, monkeypatch, "show", first.stem, "--json").stdout)
    assert full["origins"]["training.epochs"] == "small.yaml:6" and full["command"] in text

    missing = next(entry for entry in read_plan(tmp_path / "small.yaml").entries if entry.method == "gce")
    text = here(tmp_path, monkeypatch, "show", missing.id).output
    assert text.startswith(f"cell {missing.id}  missing\n") and "run it alone: bench run small.yaml" in text
    assert "params.q" in text
    assert json.loads(here(tmp_path, monkeypatch, "show", missing.id, "--json").stdout)["state"] == "missing"

    (tmp_path / "small.yaml").write_text("methods: [nothing]")
    text = here(tmp_path, monkeypatch, "show", first.stem).output
    assert "where the values came from is not known: small.yaml cannot be planned here" in text and "training.epochs" in text


def test_plan_estimates_from_records_of_the_same_method_data_and_model(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    erm = [path for path in records(suite) if load_record(path)["cell"]["method"]["name"] == "erm"]
    cost = {"setup_seconds": 2.0, "train_seconds": 50.0, "eval_seconds": 10.0}
    for path in erm[1:]:
        path.unlink()
    changed(erm[0], cost=cost)
    for path in set(records(suite)) - set(erm):
        path.unlink()
    words = ("plan", "small.yaml", "--set", "training.epochs=6")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    facts = json.loads(here(suite, monkeypatch, *words, "--json").stdout)
    found = facts["estimate"]
    # 60 s for one epoch of 10 images: 2 + 6 * 60 s a cell, for four cells of erm
    assert (found["known"], found["to_run"], found["records"], found["seconds"]) == (4, 8, 1, 4 * 362.0)
    assert found["slots"] == [2] and found["devices"] == ["cpu"] and found["hours"] == round(2 * 362 / 3600, 4)
    assert found["unknown"] == [{"dataset": "digits", "method": "gce", "cells": 4}]
    assert {cell["estimated_seconds"] for cell in facts["cells"]} == {362.0, None}
    text = here(suite, monkeypatch, *words).output
    assert "estimated: 12 min for 4 of 8 cells, 2 at a time on this machine (24 min one after the other); from 1 records" in text
    assert "time unknown of 4 cells" in text and "gce on digits (4)" in text
    assert "unknown" not in here(suite, monkeypatch, *words, "--only", "method=erm").output
    # half of the images: 25 s of training an epoch, and the same 10 s of evaluation
    half = json.loads(here(suite, monkeypatch, *words, "--set", "protocol.train_fraction=0.5", "--json").stdout)
    assert half["estimate"]["seconds"] == 4 * (2 + 6 * 35)
    # a method's own share: its cells take both cores, so they run one after the other, the others two at a time
    text = (suite / "small.yaml").read_text()
    (suite / "small.yaml").write_text(text + "\nresources: {methods: {erm: {cpu: 2}}}\n")
    found = json.loads(here(suite, monkeypatch, *words, "--json").stdout)["estimate"]
    assert found["slots"] == [1, 2] and found["hours"] == round(4 * 362 / 3600, 4)
    assert "4 of 8 cells, 1 or 2 at a time" in here(suite, monkeypatch, *words).output
    (suite / "small.yaml").write_text(text)
    other = here(suite, monkeypatch, *words, "--set", "model.name=tiny-cnn")
    assert "estimated" not in other.output, "another model is another speed"
    shutil.move(suite / "results" / "small", suite / "results" / "elsewhere")
    assert json.loads(here(suite, monkeypatch, *words, "--json").stdout)["estimate"]["known"] == 4, "other suites count"


# -- doctor --------------------------------------------------------------------------------------------------------
def findings(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    done = here(folder, monkeypatch, "doctor", "--json", *options)
    return done.exit_code, {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_doctor_examines_folders_space_clock_and_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    code, found = findings(tmp_path, monkeypatch)
    assert code == 0 and {"results folder", "cache folder", "temporary folder", "disk space", "data folder", "clock",
                          "Ray cluster", "MLflow store", "GPU", "torch"} <= set(found)  # fmt: skip
    assert " GB free" in found["disk space"]["detail"] and found["clock"]["ok"]
    assert list(tmp_path.iterdir()) == [], "it leaves nothing"

    code, found = findings(tmp_path, monkeypatch, "--address", "127.0.0.1:9", "--tracking", "http://fake:hunter2@127.0.0.1:9")
    assert code == 3 and not found["Ray cluster"]["ok"] and found["MLflow store"]["detail"].startswith("http://127.0.0.1:9: ")
    assert "hunter2" not in json.dumps(found)
    code, found = findings(tmp_path, monkeypatch, "--data", "nowhere")
    assert code == 3 and found["data folder"]["detail"] == "nowhere (not there)"
    monkeypatch.setenv("BENCH_DATA", "nowhere")
    assert findings(tmp_path, monkeypatch)[0] == 0, "only what is named on the command line is required"
    monkeypatch.setattr("bench.doctor.time.time", lambda: 0.0)
    assert not findings(tmp_path, monkeypatch)[1]["clock"]["ok"]


def test_doctor_asks_who_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        code, found = findings(tmp_path, monkeypatch, "--address", place, "--tracking", f"http://{place}")
    assert code == 0 and found["Ray cluster"]["detail"] == f"{place} answers"
    assert found["MLflow store"]["detail"] == f"http://{place} answers"


# -- what to do next -----------------------------------------------------------------------------------------------
def test_a_command_line_repeats_what_is_not_by_default() -> None:
    options = {"only": ("method=a b",), "set": (), "seeds": "3", "results": "results", "executor": "ray", "data": None}
    assert command_line("run", "my suite.yaml", **options) == "bench run 'my suite.yaml' --only 'method=a b' --seeds 3"
    options |= {"results": "r", "executor": "inline", "only": ("rate=0", "seed=1"), "retry_failed": True, "force": False}
    assert command_line("run", "s", **options) == (
        "bench run s --only rate=0 --only seed=1 --seeds 3 --results r --executor inline --retry-failed"
    )
    assert command_line("run", "s", tracking="http://me:secret@host:5000") == "bench run s --tracking http://host:5000"


def test_a_run_says_how_to_go_on_with_its_own_options(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "results").rename(suite / "my results")
    changed(records(suite, "my results")[0], status="failed", reason="x", metrics={})
    done = here(suite, monkeypatch, "run", "small.yaml", "--results", "my results", "--only", "dataset=digits", *INLINE)
    again = "bench run small.yaml --only dataset=digits --results 'my results' --executor inline --tracking none --retry-failed"
    assert done.output.splitlines()[-1] == (
        f"not all cells are done; `bench show CELL --results 'my results'` shows why, `{again}` tries again"
    )
    assert f"(bench show {records(suite, 'my results')[0].stem} --results 'my results')" in done.output

    report = api.run(suite / "small.yaml", results=suite / "my results", say=None)
    report.interrupted = True
    monkeypatch.setattr(api, "run", lambda *_, **__: report)
    done = here(suite, monkeypatch, "run", "small.yaml", "small.yaml", "--results", "my results", "--seeds", "2")
    assert done.output.splitlines()[-1].endswith(
        "continue with: bench run small.yaml small.yaml --seeds 2 --results 'my results'"
    ), "a suite that was not reached is still to be run"


def test_status_show_and_stats_name_the_results_folder(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "results").rename(suite / "r")
    status = ("status", "small.yaml", "--results", "r")
    assert here(suite, monkeypatch, *status).stdout.endswith("next: bench table small.yaml --results r\n")
    failed, missing, done, *_ = records(suite, "r")
    missing.unlink()
    assert here(suite, monkeypatch, *status).stdout.endswith("next: bench run small.yaml --results r\n")
    shown = here(suite, monkeypatch, "show", missing.stem, "--results", "r", "--no-origins").stdout.splitlines()[-1]
    assert shown.startswith("run it alone: bench run small.yaml --only ") and shown.endswith(" --results r")
    shown = here(suite, monkeypatch, "show", done.stem, "--results", "r", "--no-origins").stdout.splitlines()[-1]
    assert shown.startswith("run it again: ") and shown.endswith(" --results r --force")
    changed(failed, status="failed", reason="x", metrics={})
    stats = json.loads(here(suite, monkeypatch, "stats", "small.yaml", "--results", "r", "--json").stdout)
    cells = [cell for section in stats["sections"] for cell in section["missing"]]
    ends = {cell["status"]: cell["command"].partition(" --results ")[2] for cell in cells}
    assert ends == {"missing": "r", "failed": "r --force"}


def test_show_names_no_suite_file_that_is_not_there(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "elsewhere").mkdir()
    (suite / "small.yaml").rename(suite / "elsewhere" / "small.yaml")
    cell = records(suite)[0].stem
    shown = here(suite, monkeypatch, "show", cell, "--no-origins").stdout.splitlines()[-1]
    assert shown == "no command runs it from here: its suite file, small.yaml, is neither here nor below suites/"
    assert json.loads(here(suite, monkeypatch, "show", cell, "--json", "--full").stdout)["command"] is None


def test_a_record_that_cannot_be_read_is_not_offered_for_removal(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = records(suite)[0]
    path.unlink()
    path.mkdir()  # what root cannot read either
    shown = here(suite, monkeypatch, "status", "small.yaml").stdout
    assert "unreadable 1" in shown and "corrupt" not in shown and "cannot be read: Is a directory" in shown
    assert shown.endswith("next: make the unreadable records readable\n")
    assert json.loads(here(suite, monkeypatch, "clean", "--records", "corrupt", "--json").stdout)["found"] == []
    done = here(suite, monkeypatch, "run", "small.yaml", *INLINE)
    assert "7 done, 1 unreadable; 0 to run" in done.output and f"error: record {path}: cannot be read" in done.output


def test_status_of_corrupt_records_does_not_send_to_the_table_that_refuses_them(
    suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records(suite)[0].write_text("{")
    shown = here(suite, monkeypatch, "status", "small.yaml").stdout
    again = "bench clean small.yaml --records corrupt"
    assert shown.endswith(f"small: next: restore the corrupt records, or remove them: {again}\n")
    assert "record (corrupt)" in here(suite, monkeypatch, *again.split()[1:]).stdout


@pytest.mark.parametrize(
    ("words", "code"), [(["table"], 0), (["status"], 1), (["stats"], 1), (["figure"], 3), (["figure", "curves"], 3)]
)
def test_a_results_folder_that_is_not_there_is_said(
    suite: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    name, *kinds = words
    done = here(suite, monkeypatch, name, "small.yaml", *kinds, "--results", "nope")
    assert done.exit_code == code and "there is no results folder nope" in done.stderr
    assert not (suite / "nope").exists()
    if name != "figure":  # which takes long
        assert "results folder" not in here(suite, monkeypatch, name, "small.yaml").stderr


# -- files that cannot be read or written --------------------------------------------------------------------------
def test_what_the_machine_refuses_is_exit_code_3(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "file").write_text("")
    for words in (
        ("noise", "make", "digits", "none", "--output", "file/x.npz"),
        ("noise", "export", "digits", "none", "--format", "csv", "--output", "file/x.csv"),
        ("noise", "describe", "digits", "none", "--figure", "file/x.png"),
        ("pages", "--out", "file/pages"),
    ):
        done = here(suite, monkeypatch, *words)
        assert done.exit_code == 3 and done.stderr.startswith("error: file"), words

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "/data/mine")

    monkeypatch.setattr("bench.data.tools.check", refused)
    monkeypatch.setattr("bench.describe.plan_text", refused)
    for words in (("data", "check", "cifar10"), ("plan", "small.yaml")):
        done = here(suite, monkeypatch, *words)
        assert (done.exit_code, done.stderr) == (3, "error: /data/mine: Permission denied\n")


def test_a_reader_that_went_away_is_left_to_click() -> None:
    def gone() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        guarded(gone)()


# -- merge ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def two(suite: Path) -> Path:
    """Two results folders: here the first four records, in `theirs` the last six, two of them the same bytes."""
    shutil.copytree(suite / "results", suite / "theirs")
    for path in records(suite)[4:]:
        path.unlink()
    for path in records(suite, "theirs")[:2]:
        path.unlink()
    return suite


def test_merge_copies_what_is_missing_and_says_what_it_would_do(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in records(two)}
    dry = here(two, monkeypatch, "merge", "theirs", "--dry-run")
    assert dry.exit_code == 0 and dry.output == "4 records would be copied to results, 2 there already, 0 kept\n"
    assert len(records(two)) == 4
    done = here(two, monkeypatch, "merge", "theirs/small")
    assert (done.exit_code, done.output) == (0, "4 records copied to results, 2 there already, 0 kept\n"), "or a suite's folder"
    assert len(records(two)) == 8
    for path in records(two):
        source = two / "theirs" / "small" / path.name
        assert path.read_bytes() == (before[path.name] if path.name in before else source.read_bytes())
    again = json.loads(here(two, monkeypatch, "merge", "theirs", "--json").stdout)
    assert (again["copied"], again["identical"], again["refused"]) == ([], 6, False)
    fresh = here(two, monkeypatch, "merge", "theirs", "results", "--results", "new")
    assert fresh.exit_code == 0 and len(records(two, "new")) == 8


def test_merge_refuses_two_records_of_one_cell_and_copies_nothing(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = records(two, "theirs")[0]
    ours = record_path(two / "results" / "small", path.stem)
    changed(path, metrics={"test_acc_last": 0.5}, provenance={"finished": "2027-01-01T00:00:00+00:00"})
    before = ours.read_bytes()
    done = here(two, monkeypatch, "merge", "theirs")
    assert done.exit_code == 1 and len(records(two)) == 4
    assert f"error: two records of cell {path.stem}: {path.resolve()} and results/small/{ours.name}" in done.output
    kept = here(two, monkeypatch, "merge", "theirs", "--prefer", "ours")
    assert kept.exit_code == 0 and ours.read_bytes() == before and len(records(two)) == 8
    assert here(two, monkeypatch, "merge", "theirs", "--prefer", "newest").exit_code == 0
    assert ours.read_bytes() == path.read_bytes(), "theirs has finished later"
    changed(path, provenance={"finished": "2020-01-01T00:00:00+00:00"})
    assert here(two, monkeypatch, "merge", "theirs", "--prefer", "newest").exit_code == 0
    assert ours.read_bytes() != path.read_bytes()
    done = here(two, monkeypatch, "merge", "theirs", "--prefer", "theirs")
    assert done.exit_code == 0 and ours.read_bytes() == path.read_bytes() and f"replaced results/small/{ours.name}" in done.output


@pytest.mark.parametrize("prefer", ["theirs", "newest"])
def test_merge_never_replaces_a_done_record_by_a_failed_one(two: Path, monkeypatch: pytest.MonkeyPatch, prefer: str) -> None:
    done_here, failed_here = records(two, "theirs")[:2]
    late = {"provenance": {"finished": "2030-01-01T00:00:00+00:00"}}
    changed(done_here, status="failed", reason="x", metrics={}, **late)
    ours = record_path(two / "results" / "small", done_here.stem)
    changed(record_path(two / "results" / "small", failed_here.stem), status="failed", reason="x", metrics={}, **late)
    before = ours.read_bytes()
    done = here(two, monkeypatch, "merge", "theirs", "--prefer", prefer)
    assert done.exit_code == 0 and ours.read_bytes() == before
    assert f"kept results/small/{ours.name}, not {done_here.resolve()}: ours is done, theirs failed" in done.output
    assert load_record(record_path(two / "results" / "small", failed_here.stem))["status"] == "done", "the other way round it is"


def test_merge_names_corrupt_records_and_copies_the_rest(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = records(two, "theirs")[-1]
    bad.write_bytes(bad.read_bytes()[:200])
    mine = record_path(two / "results" / "small", records(two, "theirs")[0].stem)
    mine.write_text("{}")
    done = here(two, monkeypatch, "merge", "theirs")
    assert done.exit_code == 1 and f"error: corrupt record {bad.resolve()}: not JSON" in done.output
    assert f"error: corrupt record results/small/{mine.name}" in done.output and mine.read_text() == "{}"
    assert len(records(two)) == 7 and not record_path(two / "results" / "small", bad.stem).exists()
    here(two, monkeypatch, "merge", "theirs", "--prefer", "theirs")
    assert load_record(mine)["status"] == "done", "only when it is asked for"


def test_merge_leaves_alone_what_changes_meanwhile(two: Path) -> None:
    from bench.merging import copy, plan_merge

    found = plan_merge([two / "theirs"], two / "results")
    first, second = found.copies[0], found.copies[1]
    first[1].write_text("written by a run")
    second[0].write_text("torn")
    copy(found)
    assert sorted(found.changed) == sorted([first[1], second[1]]) and first[1].read_text() == "written by a run"
    assert not second[1].exists() and len(found.copies) == 2


@pytest.mark.parametrize("words", [["nowhere"], ["results"], ["results/small"], ["."], []], ids=str)
def test_merge_with_folders_that_make_no_sense(two: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    if words == ["."]:
        shutil.rmtree(two / "theirs")
        shutil.rmtree(two / "results" / "small")
    done = here(two, monkeypatch, "merge", *words)
    assert done.exit_code == 2 and "Traceback" not in done.output


# -- clean ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def littered(suite: Path) -> Path:
    """A results folder with everything that runs leave behind, and a cell that is not finished."""
    work = suite / "results" / "small" / ".work"
    (work / "logs").mkdir(parents=True)
    for path in records(suite):
        (work / f"{path.stem}.ckpt").write_bytes(b"x" * 1000)
        (work / "logs" / f"{path.stem}.log").write_text("line\n")
        (work / f"{path.stem}.lock").touch()
    unfinished, failed = records(suite)[:2]
    unfinished.unlink()
    changed(failed, status="failed", reason="x", metrics={})
    old = work / ".aaaa.ckpt.123.tmp"
    old.write_text("half")
    os.utime(old, (1, 1))
    (work / ".bbbb.ckpt.456.tmp").write_text("being written now")
    return suite


def test_clean_shows_first_and_removes_with_yes(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = littered / "results" / "small" / ".work"
    before = sorted(littered.rglob("*"))
    shown = here(littered, monkeypatch, "clean")
    assert shown.exit_code == 0 and shown.output.splitlines()[-1].endswith("can go; nothing was removed: add --yes")
    assert sorted(littered.rglob("*")) == before
    counts = {line.split()[0]: line.split()[1] for line in shown.output.splitlines()[1:-1]}
    assert counts == {"checkpoints": "7", "locks": "8", "logs": "6", "leftovers": "1"}, "logs of failed cells stay"
    kept = [path.read_bytes() for path in records(littered)]
    done = here(littered, monkeypatch, "clean", "--yes")
    assert done.exit_code == 0 and done.output.splitlines()[-1].startswith("22 files, 7.0 kB removed"), done.output
    assert len(list(work.glob("*.ckpt"))) == 1, "the checkpoint of the cell that is not finished"
    assert [path.name for path in work.glob(".*.tmp")] == [".bbbb.ckpt.456.tmp"] and list(work.glob("*.lock")) == []
    assert [path.read_bytes() for path in records(littered)] == kept, "records stay"
    assert here(littered, monkeypatch, "clean", "--yes").output == "0 files, 0 B removed\n"


def test_clean_removes_records_only_of_a_status_that_is_named(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupt = records(littered)[-1]
    corrupt.write_text("{")
    assert len(records(littered)) == 7
    shown = json.loads(here(littered, monkeypatch, "clean", "--records", "failed", "--json").stdout)
    assert [item["kind"] for item in shown["found"]] == ["record (failed)"] and shown["removed"] == []
    assert here(littered, monkeypatch, "clean", "--records", "failed", "--yes").exit_code == 0
    assert len(records(littered)) == 6 and corrupt.exists()
    assert here(littered, monkeypatch, "clean", "--records", "corrupt", "--yes").exit_code == 0
    assert len(records(littered)) == 5 and (littered / "results" / "small" / "plan.json").exists()


def test_clean_spares_what_is_in_use(littered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    work = littered / "results" / "small" / ".work"
    held = work / f"{records(littered)[0].stem}.lock"
    code = "import sys, time\nfrom filelock import FileLock\nlock = FileLock(sys.argv[1])\nlock.acquire()\n"
    code += "print('held', flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, held], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert here(littered, monkeypatch, "clean", "small.yaml", "--only", "locks", "--yes").exit_code == 0
        assert list(work.glob("*.lock")) == [held]
        process.kill()
    with live.Live(work), FileLock(held):
        done = here(littered, monkeypatch, "clean", "--yes", "--records", "done")
        assert "is at work there" in done.output and len(records(littered)) == 7
    assert here(littered, monkeypatch, "clean", "--older-than", "1").output.splitlines()[-1].startswith("1 files, 4 B can go")


def test_clean_removes_cached_stages(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from bench.stages import Built, StageStore

    StageStore(suite / "results" / ".work" / "cache").get({"name": "warm"}, lambda: Built({"a": torch.zeros(3)}))
    assert "cache" not in here(suite, monkeypatch, "clean", "small.yaml").output, "a suite's name spares what all share"
    assert here(suite, monkeypatch, "clean", "--only", "cache", "--older-than", "1", "--yes").output.startswith("0 files")
    assert here(suite, monkeypatch, "clean", "--only", "cache", "--yes").output.splitlines()[-1].startswith("1 files")
    assert list((suite / "results" / ".work" / "cache").glob("*.pt")) == []


# -- completion ----------------------------------------------------------------------------------------------------
def completed(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What bash would be offered for the last of `words`."""
    monkeypatch.chdir(folder)
    environment = {"_BENCH_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["bench", *words]), "COMP_CWORD": str(len(words))}
    output = CliRunner().invoke(cli.main, env=environment, prog_name="bench").output
    return [line.partition(",")[2] for line in output.splitlines() if line]


def test_completion_knows_commands_suites_cells_and_methods(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (suite / "suites" / "deep").mkdir(parents=True)
    (suite / "suites" / "deep" / "one.yaml").write_text("")
    assert completed(suite, monkeypatch, "sta") == ["stats", "status"]
    assert completed(suite, monkeypatch, "run", "suites/d") == ["suites/deep/one.yaml"]
    ids = [path.stem for path in records(suite)]
    assert completed(suite, monkeypatch, "show", ids[0][:3]) == [i for i in ids if i.startswith(ids[0][:3])]
    assert completed(suite, monkeypatch, "show", "--results", "nowhere", ids[0][:3]) == []
    assert {"co-teaching", "co-teaching-plus"} <= set(completed(suite, monkeypatch, "check", "co-"))
    assert completed(suite, monkeypatch, "merge", "--prefer", "n") == ["newest"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    done = here(tmp_path, monkeypatch, "completion", shell)
    assert done.exit_code == 0 and f"_BENCH_COMPLETE={shell}_complete" in done.output
    if shutil.which(shell):
        subprocess.run([shell, "-n", "-c" if shell != "fish" else "--command", done.output], timeout=20, check=True)
    assert here(tmp_path, monkeypatch, "completion", "tcsh").exit_code == 2


# -- help ----------------------------------------------------------------------------------------------------------
COMMANDS = list(commands(cli.main))


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS])
def test_help_says_what_it_does_with_an_example_options_and_exit_codes(words: tuple[str, ...], command: Any) -> None:
    done = CliRunner().invoke(cli.main, [*words, "--help"], prog_name="bench")
    assert done.exit_code == 0
    lines = [line.strip() for line in done.output.splitlines()]
    assert lines[2][:1].isupper() and len(command.get_short_help_str(200)) > 15
    example = "bench " + " ".join(words)
    assert any(line == example or line.startswith(example + " ") for line in lines), f"no line begins with `{example}`"
    assert any(line.startswith("Exit codes: 0 ") for line in lines)
    undescribed = [option.opts[-1] for option in command.params if option.param_type_name == "option" and not option.help]
    assert not undescribed


@pytest.mark.parametrize("words", [("status", "small.yaml"), ("doctor",), ("merge", "theirs"), ("clean",), ("plan", "small.yaml"),
                                   ("cache", "ls"), ("ls", "methods")], ids=" ".join)  # fmt: skip
def test_reading_commands_print_one_json_document(two: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    json.loads(here(two, monkeypatch, *words, "--json").stdout)
