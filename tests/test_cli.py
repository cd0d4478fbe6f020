"""The installed command as a hostile user meets it: what it prints, what it leaves on disk, and its exit codes (law 9).

Each start of the command that plans or runs imports torch and takes seconds, so runs are shared, and what needs no
process of its own (parsing, messages) is tested in this one with click's runner or in `test_suite.py`.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from finished import finish, made_up_record
from resident_trees import cifar10

import bench
from bench import cli
from bench.api import read_plan
from bench.data import datasets
from bench.execute import adopt, execute
from bench.progress import make_listener
from bench.records import load_record, load_records, record_files, write_record
from bench.yaml_source import SuiteError

BENCH = Path(sys.executable).parent / "bench"
INLINE = ("--executor", "inline", "--tracking", "none")
SMALL = """\
datasets: digits
noises: [none, symmetric@0.5]
methods: [erm, gce]
seeds: [0, 1]
model: mlp
training: {epochs: 1}
"""


def command(folder: Path, *arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """`bench arguments` in `folder`."""
    return subprocess.run(
        [BENCH, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **environment},
    )


def here(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    """The same without a new process."""
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli.main, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file below a folder; locks and scratch apart."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".work" not in path.parts]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def copied(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target, dirs_exist_ok=True))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder with the small suite, run once by the command. Tests that change something work on a copy."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(SMALL)
    return folder, command(folder, "run", "small.yaml", *INLINE)


@pytest.fixture
def small(first: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of the finished folder."""
    return copied(first[0], tmp_path / "copy")


# -- a run ---------------------------------------------------------------------------------------------------------
def test_a_run_shows_the_plan_each_cell_the_table_and_the_files(first: Any) -> None:
    folder, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "small: 8 cells; 8 to run"
    finished = [line for line in lines if line.startswith("[")]
    assert len(finished) == 8 and finished[-1].startswith("[8/8] done     digits symmetric@0.5 gce seed 1: test ")
    assert any(line.strip().startswith("Cross-Entropy  last") for line in lines)
    for name in ("table.md", "table.tex", "table.csv", "table.html", "accuracy.png"):
        assert f"wrote results/small/{name}" in lines
        assert (folder / "results" / "small" / name).stat().st_size > 0
    assert lines[-1] == "small: 8 done; ran 8 now"
    assert done.stderr == ""


def test_records_hold_what_the_manual_says(first: Any) -> None:
    records = load_records(first[0] / "results" / "small")
    assert len(records) == 8
    for record in records.values():
        assert record["schema"] == 1 and record["status"] == "done" and record["reason"] is None
        metrics = record["metrics"]
        for protocol in ("last", "last_k", "best_oracle", "selected"):
            assert 0 <= metrics[f"test_acc_{protocol}"] <= 1
        assert record["curve"]["epoch"] == [0]
        assert record["curve"]["test_acc"] == [round(metrics["test_acc_last"], 6)]
        assert len(record["noise"]["sha256"]) == 64
        assert abs(record["noise"]["rate"] - 0.45 * (record["cell"]["noise"]["kind"] == "symmetric")) < 0.05
        cost = record["cost"]
        assert cost["networks"] == 1 and cost["forward_images"] > cost["backward_images"] > 0
        assert min(cost[f"{part}_seconds"] for part in ("setup", "train", "eval")) > 0
        source = record["provenance"]
        assert source["bench"] == bench.__version__ and len(source["code"]) == 16 and source["executor"] == "inline"
        assert str(first[0]) not in json.dumps(record), "a record holds no path"
    shas = {(r["cell"]["noise"]["kind"], r["cell"]["seed"]): set() for r in records.values()}
    for record in records.values():
        shas[record["cell"]["noise"]["kind"], record["cell"]["seed"]].add(record["noise"]["sha256"])
    assert all(len(found) == 1 for found in shas.values()), "all methods of a seed see the same labels (law 4)"


def test_a_second_run_runs_nothing_and_changes_no_byte(small: Path) -> None:
    before = contents(small)
    done = command(small, "run", "small.yaml")  # with Ray and MLflow, which nothing starts
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small: 8 cells; 8 done; 0 to run\n")
    assert done.stdout.endswith("small: 8 done; ran 0 now\n")
    assert contents(small) == before


def test_deleting_a_record_runs_one_cell(small: Path) -> None:
    results = small / "results" / "small"
    before = contents(results)
    victim = record_files(results)[3]
    cell = load_record(victim)["cell"]
    victim.unlink()
    done = command(small, "run", "small.yaml", *INLINE, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["ran"], summary["counts"], summary["exit_code"]) == (1, {"done": 8}, 0)
    assert len([line for line in done.stderr.splitlines() if line.startswith("[")]) == 1, "progress goes to stderr"
    again = load_record(victim)
    assert again["cell"] == cell
    assert again["metrics"] == json.loads(before[victim.name][0])["metrics"], "the same cell, the same bits (law 5)"
    changed = {name for name, found in contents(results).items() if found != before[name]}
    assert changed <= {victim.name, "accuracy.png", "accuracy.pdf", "accuracy.svg"}


def test_records_that_come_by_copy_are_drawn(small: Path) -> None:
    results, only = small / "results" / "small", (*INLINE, "--only", "method=erm")
    before = (results / "accuracy.svg").read_bytes()
    victim = next(path for path in record_files(results) if load_record(path)["cell"]["method"]["name"] == "gce")
    held = victim.read_bytes()
    victim.unlink()
    assert command(small, "run", "small.yaml", *only).returncode == 0
    assert (results / "accuracy.svg").read_bytes() != before, "a figure of a record that is gone"
    victim.write_bytes(held)  # what `bench merge` does
    assert command(small, "run", "small.yaml", *only).stdout.endswith("ran 0 now\n")
    assert (results / "accuracy.svg").read_bytes() == before


def test_a_cell_that_another_suite_has_is_adopted(small: Path) -> None:
    (small / "other.yaml").write_text(SMALL.replace("[erm, gce]", "[{method: gce, label: again}]"))
    done = command(small, "run", "other.yaml", *INLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("other: 4 cells; 4 taken from other suites; 0 to run\n")
    for path in record_files(small / "results" / "other"):
        assert path.read_bytes() == (small / "results" / "small" / path.name).read_bytes()
    assert len(record_files(small / "results" / "other")) == 4


def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("epochs: 1", "epochs: 8"))
    words = [BENCH, "run", "small.yaml", *INLINE]
    runs = [subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    records = load_records(tmp_path / "results" / "small")
    assert len(records) == 8 and {record["status"] for record in records.values()} == {"done"}
    assert all(out.splitlines()[-1].startswith("small: 8 done") for out, _ in outputs)
    text = command(tmp_path, "table", "small.yaml").stdout
    assert text == (tmp_path / "results" / "small" / "table.md").read_text()


# -- methods that go wrong -----------------------------------------------------------------------------------------
METHOD = """\
import time
import torch
from bench.method import LossMethod
from bench.ops.losses import cross_entropy

class Broken(LossMethod):
    slug = "{slug}"
    def loss(self, logits, batch):
        losses = cross_entropy(logits, batch.labels)
        {loss}
"""
BROKEN = {
    "raises": "raise RuntimeError('out of ideas\\nsecond line')",
    "nan": "return losses * float('nan')",
    "scalar": "return losses.mean()",
    "cheats": "return losses * self.task.clean_labels[batch.index]",
    "takes": "return losses * self.task.noise_rate",
}
PREDICT = "    def predict(self, images):\n        return torch.zeros(3)\n"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A suite of two sound methods with broken ones between them, run once."""
    folder = tmp_path_factory.mktemp("broken")
    for slug, loss in BROKEN.items():
        (folder / f"{slug}.py").write_text(METHOD.format(slug=slug, loss=loss))
    (folder / "predicts.py").write_text(METHOD.format(slug="predicts", loss="return losses") + PREDICT)
    files = ", ".join(f"./{slug}.py" for slug in [*BROKEN, "predicts"])
    text = SMALL.replace("[erm, gce]", f"[erm, {files}, gce]").replace("[0, 1]", "0").replace("seeds: 0", "seeds: [0]")
    (folder / "broken.yaml").write_text(text.replace("[none, symmetric@0.5]", "none"))
    return folder, command(folder, "run", "broken.yaml", *INLINE)


REASONS = {
    "raises": ("failed", "RuntimeError: out of ideas"),
    "nan": ("diverged", "the training loss is not finite in epoch 0"),
    "scalar": ("failed", "ValueError: scalar.loss must return one loss per sample, shape (64,); it returned ()"),
    "cheats": ("failed", "NeedError: method 'cheats' reached for task.clean_labels"),
    "takes": ("failed", "NeedError: method 'takes' read task.noise_rate without declaring it"),
    "predicts": ("failed", "ValueError: predicts.predict must return probabilities of shape"),
}


def test_broken_methods_fail_alone(broken: Any) -> None:
    folder, done = broken
    assert done.returncode == 1, done.stderr
    records = load_records(folder / "results" / "broken").values()
    found = {record["cell"]["method"]["name"]: record for record in records}
    assert found["erm"]["status"] == found["gce"]["status"] == "done", "other cells finish, also after a broken one"
    for slug, (status, reason) in REASONS.items():
        assert found[slug]["status"] == status and reason in found[slug]["reason"], slug
        assert f"{status}: digits none {slug} seed 0: {reason}"[:90] in done.stdout, slug
    assert "Traceback" in found["raises"]["traceback"] and "raises.py" in found["raises"]["traceback"]
    assert "broken: 1 diverged, 2 done, 5 failed; ran 8 now" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("not all cells are done; `bench show CELL` shows why")
    assert "Traceback" not in done.stdout + done.stderr


def test_status_and_show_say_why(broken: Any) -> None:
    folder, _ = broken
    status = command(folder, "status", "broken.yaml")
    assert status.returncode == 1
    assert "RuntimeError: out of ideas" in status.stdout and "second line" not in status.stdout
    assert status.stdout.splitlines()[-1] == "broken: next: bench run broken.yaml --retry-failed"
    cells = {cell["method"]: cell for cell in json.loads(command(folder, "status", "broken.yaml", "--json").stdout)["open"]}
    assert cells["nan"]["state"] == "diverged" and cells.keys() == REASONS.keys()
    shown = command(folder, "show", cells["raises"]["id"][:12])
    assert shown.returncode == 0 and "Traceback" in shown.stdout and "second line" in shown.stdout


def test_failed_cells_are_not_run_again_unasked(broken: Any, tmp_path: Path) -> None:
    folder = copied(broken[0], tmp_path / "copy")
    before = contents(folder)
    done = command(folder, "run", "broken.yaml", *INLINE)
    assert done.returncode == 1 and done.stdout.startswith("broken: 8 cells; 2 done, 5 failed, 1 diverged; 0 to run")
    assert contents(folder) == before
    for slug in ("raises", "nan"):
        (folder / f"{slug}.py").write_text(METHOD.format(slug=slug, loss="return losses"))
    done = command(folder, "run", "broken.yaml", *INLINE, "--retry-failed", "--only", "method=raises,nan,erm")
    assert done.returncode == 0, "the exit code is that of the selected cells"
    assert "broken: 3 cells; 1 done, 1 failed, 1 diverged; 2 to run" in done.stdout
    assert done.stdout.endswith("broken: 3 done; ran 2 now\n")
    (folder / "nan.py").write_text(METHOD.format(slug="nan", loss="return 2 * losses"))
    again = command(folder, "run", "broken.yaml", *INLINE, "--only", "method=raises,nan").stdout
    assert "note: the code of nan has changed since records here were made" in again and again.endswith("ran 0 now\n")
    untouched = [name for name, found in contents(folder / "results").items() if before["results/" + name] == found]
    assert len([name for name in untouched if len(Path(name).stem) == 16]) == 6


def test_show_prints_a_command_that_runs_the_cell_again(broken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(broken[0], tmp_path / "copy")
    label = "symmetric@0.3 (touched=coin, own_class=False)"
    text = SMALL.replace("symmetric@0.5", "{kind: symmetric, rate: 0.3, touched: coin, own_class: false}")
    (folder / "suites").mkdir()
    (folder / "suites" / "commas.yaml").write_text(text)
    only = ("--only", f"noise={label}", "--only", "method=gce", "--only", "seed=1")
    for extra in ((), ("--set", "training.lr=0.01", "--set", "gce.q=0.5")):
        run = here(folder, monkeypatch, "run", "suites/commas.yaml", *INLINE, *only, *extra)
        assert run.exit_code == 0, run.output
    records = record_files(folder / "results" / "commas")
    assert len(records) == 2
    for path in records:
        shown = here(folder, monkeypatch, "show", path.stem).output.splitlines()[-1]
        prefix, _, words = shown.partition("bench ")
        assert prefix == "run it again: "
        before = path.read_bytes()
        again = here(folder, monkeypatch, *shlex.split(words), *INLINE, "--json")
        assert again.exit_code == 0 and path.read_bytes() != before, shown
        assert json.loads(again.stdout)["ran"] == 1
    assert len(record_files(folder / "results" / "commas")) == 2


def test_a_method_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "[time.sleep(0.01) for _ in iter(int, 1)]"
    (tmp_path / "hangs.py").write_text(METHOD.format(slug="hangs", loss=loop))
    text = SMALL.replace("[erm, gce]", "[./hangs.py, erm]").replace("[0, 1]", "1").replace("[none, symmetric@0.5]", "none")
    (tmp_path / "suite.yaml").write_text(text)
    assert here(tmp_path, monkeypatch, "run", "suite.yaml", *INLINE, "--only", "method=erm").exit_code == 0  # warms torch up
    (tmp_path / "suite.yaml").write_text(text + "resources: {time_limit: 0.1}\n")
    done = here(tmp_path, monkeypatch, "run", "suite.yaml", *INLINE)
    assert done.exit_code == 1, done.output
    assert "failed   digits none hangs seed 0: exceeded the time limit of 0.1 s" in done.output
    assert "suite: 1 done, 1 failed; ran 1 now" in done.output


# -- corrupt records -----------------------------------------------------------------------------------------------
def test_corrupt_records_are_named_kept_and_do_not_stop_the_rest(small: Path) -> None:
    results = small / "results" / "small"
    cut, edited, misnamed, other, missing, *_ = record_files(results)
    cut.write_bytes(cut.read_bytes()[:300])
    edited.write_text(edited.read_text().replace('"seed": ', '"seed":  ').replace('"test_acc_last": 0.', '"test_acc_last": 0.9'))
    shutil.copy(other, misnamed)
    missing.unlink()
    bad = (cut, edited, misnamed)
    before = [path.read_bytes() for path in bad]

    done = command(small, "run", "small.yaml", *INLINE)
    assert done.returncode == 1
    assert done.stdout.startswith("small: 8 cells; 4 done, 3 corrupt; 1 to run")
    assert load_record(missing)["status"] == "done", "other cells run"
    assert "its record is corrupt" in (results / "table.md").read_text()
    for path, fault in zip(bad, ("not JSON", "its checksum", f"it holds the record of cell {other.stem}"), strict=True):
        assert f"error: corrupt record {path}: {fault}" in done.stdout, done.stdout
    assert [path.read_bytes() for path in bad] == before, "nothing is lost"

    status = command(small, "status", "small.yaml")
    assert status.returncode == 1 and "corrupt   3" in status.stdout and str(cut) in status.stdout
    for arguments in (("table", "small.yaml"), ("show", cut.stem)):
        refused = command(small, *arguments)
        assert refused.returncode == 1 and refused.stdout == ""
        assert refused.stderr.startswith("error: corrupt record ") and "Traceback" not in refused.stderr
        assert any(path.name in refused.stderr for path in bad)

    forced = command(small, "run", "small.yaml", *INLINE, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert json.loads(forced.stdout)["ran"] == 8, "--force runs what is selected, done or not"
    assert len(load_records(results)) == 8


# -- bad input -----------------------------------------------------------------------------------------------------
def test_every_fault_of_a_suite_is_reported_at_once_with_line_and_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "datasets: [digits, digit]\n"
        "noises:\n"
        "- none\n"
        "- symetric@0.5\n"
        "- symmetric@1.5\n"
        "- {kind: symmetric, rtae: 0.5}\n"
        "methods:\n"
        "- erm\n"
        "- erm\n"
        "- coteaching\n"
        "- method: elr\n"
        "  params:\n"
        "    lamm: 3\n"
        "- method: llc-dro\n"
        "  params: {k: -1}\n"
        "- co-teaching\n"
        "forbid_needs: [noise_rate]\n"
    )
    done = command(tmp_path, "plan", "bad.yaml")
    assert done.returncode == 2 and done.stdout == ""
    first, *lines = done.stderr.splitlines()
    expected = [
        ("bad.yaml:1: datasets[1]: unknown dataset 'digit'", "did you mean digits"),
        ("bad.yaml:4: noises[1]: unknown noise 'symetric'", "did you mean symmetric"),
        ("bad.yaml:5: noises[2].rate: '1.5' is out of range", "must be >= 0 and <= 1"),
        ("bad.yaml:6: noises[3].rtae: symmetric has no field 'rtae'", "did you mean rate"),
        ("bad.yaml:9: methods[1]: the same cell stands here twice: digits none erm seed 0", "is in bad.yaml:8"),
        ("bad.yaml:10: methods[2].method: unknown method 'coteaching'", "did you mean co-teaching"),
        ("bad.yaml:13: methods[3].params.lamm: elr has no field 'lamm'", "did you mean lam?"),
        ("bad.yaml:15: methods[4].params.k: -1 is out of range", "must be >= 1"),
        ("bad.yaml:16: methods[5]: co-teaching needs noise_rate, which this suite forbids", "take noise_rate out of"),
    ]
    assert first == f"error: {len(expected)} problems in the suite"
    for start, hint in expected:
        found = [line.strip() for line in lines if line.strip().startswith(start)]
        assert len(found) == 1 and hint in found[0], (start, done.stderr)


BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("j"))
)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"datasets: digits\nnoises: none\nmethods: erm\ntrainig: {epochs: 1}\n", "suite.yaml:4: trainig: unknown key"),
        (b"datasets: digits\nnoises: []\nmethods: erm\n", "suite.yaml:2: noises: the grid is empty"),
        (b"datasets: digits\nmethods: erm\n", "the grid is empty: it has no noises"),
        (b"datasets: [digits\nmethods: erm\n", "suite.yaml:2: is not YAML"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not UTF-8 text"),
        (b"just words\n", "a suite is a mapping of keys to values"),
        (b"", "the file is empty"),
        (b"title: x\n" * 1_200_000, "has more than 1,000,000 bytes"),
        (b"training:\n\tepochs: 1\n", "suite.yaml:2: is not YAML: found character '\\t'"),
        (b"include: suite.yaml\n", "suite.yaml:1: include[0]: includes form a cycle: suite.yaml -> suite.yaml"),
        (b"seeds: [0]\nmethods: erm\nseeds: [1]\n", "suite.yaml:3: seeds: this key stands here twice"),
        (BOMB, "too many or too deeply nested values"),
    ],
    ids=[
        "key",
        "empty-list",
        "no-axis",
        "yaml",
        "binary",
        "text",
        "empty",
        "10-MB",
        "tabs",
        "cycle",
        "repeated",
        "bomb",
    ],
)
def test_a_file_that_is_no_suite(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "suite.yaml").write_bytes(raw)
    done = command(tmp_path, "plan", "suite.yaml")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: 1 problem in the suite\n  suite.yaml") and says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_suite_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "near.yaml").write_text(SMALL)
    done = command(tmp_path, "run", "nere.yaml")
    assert done.returncode == 2 and "nere.yaml: no such file (did you mean near.yaml?)" in done.stderr
    done = command(tmp_path, "run", ".")
    assert done.returncode == 2 and "is a folder, not a suite file" in done.stderr


def test_a_fault_in_the_last_suite_shows_before_the_first_one_runs(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SMALL)
    (tmp_path / "bad.yaml").write_text(SMALL.replace("erm", "ermm"))
    done = command(tmp_path, "run", "good.yaml", "bad.yaml", *INLINE)
    assert done.returncode == 2 and "bad.yaml:3: methods[0].method: unknown method 'ermm'" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_cannot_be_written(small: Path) -> None:
    (small / "blocked").write_text("a file where the folder should be")
    done = command(small, "run", "small.yaml", *INLINE, "--results", "blocked")
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("error: cannot write to the results folder ") and "--results DIR" in done.stderr
    assert (small / "blocked").read_text() == "a file where the folder should be"


def test_tracking_that_cannot_be_reached_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = command(tmp_path, "run", "small.yaml", "--executor", "inline", "--tracking", "http://127.0.0.1:9")
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: cannot use the MLflow store http://127.0.0.1:9") and "--tracking none" in done.stderr
    assert record_files(tmp_path / "results" / "small") == []


def test_a_gpu_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "small.yaml").write_text(SMALL + "resources: {gpu: 1}\n")
    done = here(tmp_path, monkeypatch, "run", "small.yaml", *INLINE)
    assert done.exit_code == 3 and "small asks for a GPU (resources.gpu)" in done.output
    assert record_files(tmp_path / "results" / "small") == [], "no failed records of cells that could never run"


@pytest.mark.parametrize("seeds", [1, 2])
def test_data_that_are_not_there_are_no_fault_of_a_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("digits", "cifar10").replace("none, ", "").replace("[0, 1]", str(seeds)))
    (tmp_path / "data").mkdir()
    done = here(tmp_path, monkeypatch, "run", "small.yaml", *INLINE, "--data", "data")
    assert done.exit_code == 3, "two lost cells, and with two seeds three after which nothing more is tried"
    assert "data/cifar-10-batches-py/data_batch_1: CIFAR-10 is missing" in done.output and "bench data get" in done.output
    assert done.output.count("] lost     cifar10 ") == seeds + 1
    assert record_files(tmp_path / "results" / "small") == []
    monkeypatch.setitem(datasets(), "cifar10", cifar10(tmp_path / "data"))
    done = here(tmp_path, monkeypatch, "run", "small.yaml", *INLINE, "--data", "data")
    assert done.exit_code == 0 and f"small: {2 * seeds} done; ran {2 * seeds} now" in done.output


def test_a_disk_that_is_full_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "small.yaml").write_text(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("bench.schedule.job.write_record", full)
        done = here(tmp_path, patch, "run", "small.yaml", *INLINE)
    assert done.exit_code == 3 and "No space left on device" in done.output
    assert done.output.count("lost     digits none") == 3, "computing more would be for nothing"
    with monkeypatch.context() as patch:
        patch.setattr("bench.outputs.write_atomic", full)
        done = here(tmp_path, patch, "run", "small.yaml", *INLINE, "--only", "method=erm", "--only", "seed=0")
    assert done.exit_code == 3 and "error: cannot write the tables: [Errno 28]" in done.output
    assert len(record_files(tmp_path / "results" / "small")) == 2, "records are safe"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "Missing argument"),
        (["run", "small.yaml", "--executor", "slurm"], "'slurm' is not one of"),
        (["run", "small.yaml", "--address", "auto", "--executor", "inline"], "which --executor inline does not use"),
        (["run", "small.yaml", "--only", "erm"], "'erm' is not AXIS=VALUE"),
        (["run", "small.yaml", "--only", "method="], "'method=' is not AXIS=VALUE"),
        (["run", "small.yaml", "--set", "training.epochs"], "is not KEY=VALUE"),
        (["run", "small.yaml", "--set", "training.lr=[1"], "is not understood"),
        (["run", "small.yaml", "--seeds", "x"], "neither a number of seeds nor a list"),
        (["run", "small.yaml", "--seeds", "0"], "neither a number of seeds nor a list"),
        (["run", "small.yaml", "--seeds", "-3"], "neither a number of seeds nor a list"),
        (["run", "small.yaml", "--seeds", "1,1"], "different seeds"),
        (["run", "small.yaml", "--seeds", "1000000000000"], "neither a number of seeds nor a list"),
        (["plan", "small.yaml", "--only", "metod=erm"], "--only: metod: unknown axis (did you mean method"),
        (["plan", "small.yaml", "--only", "method=elr"], "--only: method: no cell has method 'elr' (did you mean erm"),
        (["plan", "small.yaml", "--set", "training.epoch=3"], "training has no field 'epoch' (did you mean epochs?)"),
        (["plan", "small.yaml", "--set", "gce.qq=1"], "gce has no field 'qq'"),
        (["plan", "small.yaml", "--set", "epochs=3"], "sets nothing in this suite (did you mean training.epochs"),
        (["plan", "small.yaml", "--set", "training.epochs=-1"], "--set: training.epochs: -1 is out of range"),
        (["table", "small.yaml", "--format", "doc"], "'doc' is not one of"),
        (["table", "small.yaml", "--protocol", "bets"], "'bets' is not one of"),
        (["show", "xyz"], "'xyz' is not a cell id"),
        (["show", "0000"], "no record in results whose id begins with '0000'"),
        (["ls", "things"], "'things' is not one of"),
        (["check", "nothing"], "unknown method 'nothing'"),
        (["check", "./nothing.py"], "no file"),
        (["runn", "small.yaml"], "No such command 'runn'"),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, list) else "",
)
def test_bad_usage_is_exit_code_2(small: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str) -> None:
    done = here(small, monkeypatch, *arguments)
    assert done.exit_code == 2 and says in done.output
    assert done.stdout == "" and "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(None, None), ("3", [0, 1, 2]), ("1", [0]), ("3,", [3]), ("0,4,7", [0, 4, 7]), (" 1 , 2", [1, 2])],
)
def test_seeds_are_a_number_or_a_list(text: str | None, seeds: list[int] | None) -> None:
    assert cli.parse_seeds(text) == seeds


def test_filters_and_overrides_as_written() -> None:
    only = cli.parse_only(("method=erm, elr", "noise=symmetric@0.3 (touched=coin, own_class=False),none", 'method="a, b"'))
    assert only == {
        "method": ["erm", "elr", "a, b"],
        "noise": ["symmetric@0.3 (touched=coin, own_class=False)", "none"],
    }
    values = cli.parse_set(("a.b=1", "a.c=[1, 2]", "a.d=text", "a.e=null", "a.f=true", "a.g=x=y", "a.b=2"))
    assert values == {"a.b": 2, "a.c": [1, 2], "a.d": "text", "a.e": None, "a.f": True, "a.g": "x=y"}


# -- progress ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("interactive", [False, True])
def test_progress_counts_what_finished_failed_and_was_lost(
    tmp_path: Path, interactive: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    jobs: list[Any] = [SimpleNamespace(id=e.id, label=e.label(), cell=e.cell) for e in read_plan(tmp_path / "small.yaml").entries]
    records = [made_up_record(job.cell, job.id, "small", warnings=[]) for job in jobs]
    records[1] |= {"status": "failed", "reason": "", "warnings": ["odd"]}
    with make_listener(jobs, None, print, interactive) as progress:
        assert progress.time_left() == "?"
        for job, record in zip(jobs[:2], records, strict=False):
            progress.started(job)
            progress.finished(job, record)
        progress.started(jobs[2])
        progress.lost(jobs[2], "the disk is full")
        progress.started(jobs[3])
        assert progress.counts == {"done": 1, "failed": 1, "lost": 1} and progress.running == {jobs[3].id}
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines[0].startswith(f"[1/8] done     {jobs[0].label}: test ") and "(left: " in lines[0]
    assert lines[1].startswith(f"[2/8] failed   {jobs[1].label}: ")
    assert lines[2] == f"[3/8] lost     {jobs[2].label}: the disk is full"
    assert progress.warnings == [
        f"{jobs[1].label}: odd", f"{jobs[2].label}: no record, run the suite again: the disk is full",
    ]  # fmt: skip


# -- reading commands ----------------------------------------------------------------------------------------------
def test_plan_shows_values_with_their_origin(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(
        "datasets: digits\nnoises: symmetric@0.5\nmethods: [{method: gce, params: {k: 0.25}}]\ntraining: {lr: 0.2}\n"
    )
    words = ("plan", "suite.yaml", "--set", "training.epochs=7", "--values")
    text = command(tmp_path, *words)
    assert text.returncode == 0, text.stderr
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.stdout.splitlines() if "." in line[:20]}
    assert rows["training.epochs"] == ["7", "command line"], text.stdout
    assert rows["training.lr"] == ["0.2", "suite.yaml:4"]
    assert rows["params.k"] == ["0.25", "suite.yaml:3"], "the suite beats the recipe, which sets k too"
    assert rows["params.q"][0] == "0.7" and rows["params.q"][1].startswith("recipe fixed: ")
    assert rows["params.prune_every"] == ["10", "class default"]

    document = command(tmp_path, *words, "--json")
    (cell,) = json.loads(document.stdout)["cells"]
    assert cell["origins"]["training.epochs"] == "command line" and cell["cell"]["training"]["epochs"] == 7
    assert cell["state"] == "missing" and not (tmp_path / "results").exists(), "a plan writes nothing"


def test_each_reading_command_prints_one_json_document(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_files(small / "results" / "small")[0]
    documents = {}
    for words in ("plan small.yaml", "status small.yaml", f"show {record.stem[:14]}", "ls methods", "ls datasets",
                  "ls noises", "ls models", "ls suites", "doctor", "run small.yaml"):  # fmt: skip
        done = here(small, monkeypatch, *words.split(), "--json")
        assert done.exit_code == 0, done.output
        documents[words.split()[0] + words.split()[1] if words.startswith("ls") else words.split()[0]] = json.loads(done.stdout)
    assert documents["show"] == load_record(record)
    assert documents["plan"]["counts"] == documents["status"]["counts"] == documents["run"]["counts"] == {"done": 8}
    assert {cell["code"] for cell in documents["plan"]["cells"]} == {"same"}
    assert {"erm", "gce", "elr", "co-teaching", "dividemix", "llc-dro"} <= {row["slug"] for row in documents["lsmethods"]}
    needs = {row["slug"]: row["needs"] for row in documents["lsmethods"]}
    assert needs["co-teaching"] == ["noise_rate"] and needs["erm"] == []
    assert {"digits", "spurious-digits"} <= {row["slug"] for row in documents["lsdatasets"]}
    assert {"none", "symmetric", "asymmetric", "uniform-flip"} <= {row["slug"] for row in documents["lsnoises"]}
    assert {"tiny-cnn", "mlp"} <= {row["slug"] for row in documents["lsmodels"]}
    assert any(row["file"].endswith("quickstart.yaml") for row in documents["lssuites"])
    assert {"torch", "results folder"} <= {row["name"] for row in documents["doctor"]}


@pytest.mark.parametrize("what", ["methods", "datasets", "noises", "models", "suites"])
def test_ls_prints_a_line_each(small: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    done = here(small, monkeypatch, "ls", what)
    rows = json.loads(here(small, monkeypatch, "ls", what, "--json").stdout)
    assert done.exit_code == 0 and len(done.stdout.splitlines()) == len(rows) + 1


def test_status_counts_and_its_exit_code_follow_the_records(small: Path) -> None:
    done = command(small, "status", "small.yaml")
    assert (done.returncode, done.stdout) == (0, "done      8\nsmall: next: bench table small.yaml\n")
    victim = record_files(small / "results" / "small")[0]
    victim.unlink()
    done = command(small, "status", "small.yaml")
    assert (done.returncode, done.stdout) == (1, "done      7\nmissing   1\nsmall: next: bench run small.yaml\n")


def test_status_of_a_suite_that_changed_since_its_run_is_planned_anew(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (small / "small.yaml").write_text(SMALL.replace("[0, 1]", "[0, 1, 2]"))
    assert json.loads(here(small, monkeypatch, "status", "small.yaml", "--json").stdout)["counts"] == {
        "done": 8,
        "missing": 4,
    }
    (small / "small.yaml").write_text(SMALL)
    for damage in ("", "[]", '{"schema": 1, "entries": 5}', '{"schema": 1, "entries": [{}]}', "\0"):
        (small / "results" / "small" / "plan.json").write_text(damage)
        assert here(small, monkeypatch, "status", "small.yaml").exit_code == 0, "a plan file can always be made anew"


def test_table_formats_are_those_of_the_run_byte_for_byte(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = small / "results" / "small"
    for fmt in ("md", "tex", "csv", "html"):
        done = here(small, monkeypatch, "table", "small.yaml", "--format", fmt)
        assert done.exit_code == 0 and done.stdout_bytes == (results / f"table.{fmt}").read_bytes()
    assert command(small, "table", "small.yaml").stdout == (results / "table.md").read_text()
    text = here(small, monkeypatch, "table", "small.yaml", "--format", "text").stdout
    assert "Cross-Entropy" in text and "symmetric@0.5" in text


def test_table_protocol_shows_that_one_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def protocols(*options: str) -> set[str]:
        text = here(small, monkeypatch, "table", "small.yaml", "--format", "csv", *options).stdout
        return {row["protocol"] for row in csv.DictReader(text.splitlines())}

    assert protocols() == {"last", "best_oracle", "selected"}
    for name in ("last", "last_k", "best_oracle", "selected"):
        assert protocols("--protocol", name) == {name}


def test_table_output(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = here(small, monkeypatch, "table", "small.yaml", "--format", "tex", "--output", "out.tex")
    assert done.exit_code == 0 and done.stdout == ""
    assert (small / "out.tex").read_bytes() == (small / "results" / "small" / "table.tex").read_bytes()
    done = here(small, monkeypatch, "table", "small.yaml", "--output", "missing/out.md")
    assert done.exit_code == 3 and "cannot write missing/out.md: No such file or directory" in done.output


def test_output_to_a_device_leaves_the_device(small: Path) -> None:
    """As root a rename onto /dev/stdout would replace it for the whole machine."""
    link = small / "stdout"
    link.symlink_to("/dev/stdout")
    done = command(small, "table", "small.yaml", "--output", "stdout")
    assert done.returncode == 0 and "Cross-Entropy" in done.stdout
    assert link.is_symlink()


def test_show_finds_a_cell_by_the_beginning_of_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many.yaml").write_text(SMALL.replace("[0, 1]", "17").replace("[none, symmetric@0.5]", "none"))
    ids = finish(tmp_path / "many.yaml", tmp_path / "results")
    (tmp_path / "results" / "many" / "0.json").write_text("no record, whatever its name")
    shared = {}
    for identity in ids:
        shared.setdefault(identity[0], []).append(identity)
    beginning = next(first for first, found in shared.items() if len(found) > 1)  # 34 ids, 16 first digits
    done = here(tmp_path, monkeypatch, "show", beginning)
    assert done.exit_code == 2
    assert f"{len(shared[beginning])} records in results whose id begins with '{beginning}'" in done.output
    done = here(tmp_path, monkeypatch, "show", ids[0].upper())
    assert done.exit_code == 0 and done.stdout.startswith(f"cell {ids[0]}  done\n")
    assert "test_acc_best_oracle" in done.stdout
    other = tmp_path / "results" / "copy"
    shutil.copytree(tmp_path / "results" / "many", other)
    assert here(tmp_path, monkeypatch, "show", ids[0]).exit_code == 0, "the same record in two suites is one record"


def test_doctor_finds_what_is_wrong(small: Path) -> None:
    (small / "file").write_text("")
    done = command(small, "doctor", "--results", "file/deeper")
    assert done.returncode == 3
    assert [line.split()[0] for line in done.stdout.splitlines() if "NOT writable" in line] == ["MISSING"]


def test_help_and_version(tmp_path: Path) -> None:
    done = command(tmp_path, "--help")
    commands = done.stdout.partition("Commands:")[2].partition("Exit codes:")[0]
    names = {line.split()[0] for line in commands.splitlines() if line.strip()}
    assert {"run", "plan", "status", "show", "table", "ls", "check", "doctor"} <= names
    assert "130 interrupted" in done.stdout
    assert command(tmp_path, "--version").stdout == f"bench, version {bench.__version__}\n"
    for name in names:
        text = CliRunner().invoke(cli.main, [name, "--help"]).output
        assert text.startswith(f"Usage: main {name}") and len(text) > 100


# -- from Python ---------------------------------------------------------------------------------------------------
def test_python_does_what_the_command_does(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small)
    results = small / "results" / "small"
    assert bench.table("small.yaml") == (results / "table.md").read_text()
    assert bench.table("small.yaml", format="csv", protocol="last").count("last") > 0
    assert bench.load_records("results") == bench.load_records(results) == load_records(results)
    lines: list[str] = []
    report = bench.run("small.yaml", say=lines.append)
    assert (report.exit_code, report.counts, report.ran) == (0, {"done": 8}, 0)
    assert lines == ["small: 8 cells; 8 done; 0 to run"]


def test_filters_and_overrides_are_the_same_from_python(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--only", "method=erm", "--only", "rate=0.5", "--set", "training.lr=0.01", "--seeds", "1")
    command_line = here(small, monkeypatch, "run", "small.yaml", *INLINE, "--results", "a", *options)
    assert command_line.exit_code == 0, command_line.output
    report = bench.run(
        "small.yaml", only={"method": "erm", "rate": 0.5}, set={"training.lr": 0.01}, seeds=1, results="b",
        executor="inline", tracking="none", say=None,
    )  # fmt: skip
    assert report.ran == 1
    a, b = bench.load_records("a"), bench.load_records("b")
    assert a.keys() == b.keys() and len(a) == 1
    assert next(iter(a.values()))["metrics"] == next(iter(b.values()))["metrics"]
    names = [sorted(p.name for p in (small / folder / "small").iterdir()) for folder in "ab"]
    assert names[0] == names[1] and not (small / "a" / "small" / "table.md").exists(), "overridden tables stand apart"
    faults = [
        ({"only": {"method": "elr"}}, "no cell has method 'elr'"),
        ({"set": {"erm.x": 1}}, "erm has no field 'x'"),
    ]
    for arguments, says in faults:
        with pytest.raises(SuiteError, match=says):
            bench.run("small.yaml", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [{"status": "failed"}, {"status": "diverged"}, {"status": "done"}, None])
def test_the_best_record_of_other_suites_that_can_be_used_is_adopted(tmp_path: Path, other: dict[str, Any] | None) -> None:
    """Before it comes one that diverged, after it one that failed or diverged, one without what is watched, a damaged one."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(SMALL.replace("[0, 1]", "1").replace("[none, symmetric@0.5]", "none"))
    ids = finish(tmp_path / "a.yaml", tmp_path / "results")
    for identity in ids:
        record = load_record(tmp_path / "results" / "a" / f"{identity}.json")
        write_record(tmp_path / "results" / "a", {**record, "watched": {"losses": {}}})
        write_record(tmp_path / "results" / "0", {**record, "status": "diverged"})  # perhaps by another machine or older code
        if other is not None:
            write_record(tmp_path / "results" / "b", {**record, **other})
        else:
            (tmp_path / "results" / "b").mkdir(exist_ok=True)
            (tmp_path / "results" / "b" / f"{identity}.json").write_text("{")
    entries: Any = [SimpleNamespace(id=identity) for identity in ids]
    for watched in (set(), {"losses"}):
        found = adopt(entries, tmp_path / "results", tmp_path / "results" / "c", ("done", "diverged"), watched)
        assert found == set(ids)
        assert all(load_record(tmp_path / "results" / "c" / f"{identity}.json")["watched"] == {"losses": {}} for identity in ids)


@pytest.mark.parametrize("status", ["done", "failed"])
def test_what_another_run_has_repaired_since_the_plan_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    (tmp_path / "one.yaml").write_text(SMALL.replace("[0, 1]", "1").replace("[none, symmetric@0.5]", "none"))
    folder = tmp_path / "results" / "one"

    def write(**changes: Any) -> None:
        for record in load_records(folder).values():
            write_record(folder, {**made_up_record(record["cell"], record["id"], "one"), **changes})

    def between(*arguments: Any) -> None:
        """The other run, after this one has planned."""
        write(status=status, reason=None if status == "done" else "by the other run")
        theirs.update({path.name: path.read_bytes() for path in record_files(folder)})
        execute(*arguments)

    theirs: dict[str, bytes] = {}
    finish(tmp_path / "one.yaml", tmp_path / "results")
    write(status="failed", reason="out of luck", metrics={})
    monkeypatch.setattr("bench.api.execute", between)
    options: dict[str, Any] = {"results": tmp_path / "results", "executor": "inline", "tracking": "none", "say": None}
    report = bench.run(tmp_path / "one.yaml", retry_failed=True, **options)
    assert report.counts == {status: 2}
    assert {path.name: path.read_bytes() for path in record_files(folder)} == theirs


def test_a_record_of_another_suite_that_diverged_is_not_adopted_on_retry(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(SMALL.replace("[0, 1]", "1").replace("[none, symmetric@0.5]", "none"))
    for identity in finish(tmp_path / "one.yaml", tmp_path / "results"):
        record = load_record(tmp_path / "results" / "one" / f"{identity}.json")
        changed = made_up_record(record["cell"], identity, "one", status="diverged", reason="far away", metrics={})
        write_record(tmp_path / "results" / "one", changed)
    options: dict[str, Any] = {"results": tmp_path / "results", "executor": "inline", "tracking": "none", "say": None}
    report = bench.run(tmp_path / "two.yaml", **options)
    assert (report.ran, report.counts, report.exit_code) == (0, {"diverged": 2}, 1), "divergence is a result"
    report = bench.run(tmp_path / "two.yaml", retry_failed=True, **options)
    assert (report.ran, report.counts, report.exit_code) == (2, {"done": 2}, 0)
