"""The conformance battery over every method, proof that each of its checks can fail, and the README's own method."""

from __future__ import annotations

import functools
import json
import math
import random
import re
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fakes.offenders import EPOCH, LOSS, OFFENCES, PREDICT, SETUP, SLUG, SOUND

from bench.api import load_records
from bench.check import CHECKS, Check, Result, Subject, check_method, run_check
from bench.check.miniature import CLASSES, Miniature
from bench.check.source import code_lines
from bench.check.subject import difference
from bench.check.worker import Worker
from bench.cli import main
from bench.data import datasets
from bench.fields import FieldError
from bench.method import methods
from bench.noise import noises
from bench.trial.task import Task

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "tests" / "examples"
NAMES = [check.name for check in CHECKS]


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Checkpoints of the battery go to the temporary folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def check_named(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


# -- every method ------------------------------------------------------------------------------------------------------
@functools.cache
def battery(slug: str) -> dict[str, Result]:
    return {result["check"]: result for result in check_method(slug, say=lambda line: None)}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("slug", list(methods()))
def test_method_conforms(slug, name):
    result = battery(slug)[name]
    assert result["passed"], result["detail"]


@pytest.mark.parametrize("slug", list(methods()))
def test_nothing_of_our_own_methods_goes_untested(slug):
    """What is a warning for a user's file is a fault of ours: lines that no check runs, needs that are never read."""
    results = battery(slug)
    if "not measured" in results["reach"]["detail"]:
        pytest.skip("a debugger or coverage tool traces this run")
    assert not [result for result in results.values() if "warning" in result["detail"]]


# -- offenders ---------------------------------------------------------------------------------------------------------
def write(folder: Path, source: str) -> str:
    path = folder / "offender.py"
    path.write_text(source)
    return str(path)


def test_the_sound_method_passes(tmp_path):
    """So whatever an offender is blamed for, it is its own line that does it."""
    assert [r["detail"] for r in check_method(write(tmp_path, SOUND), say=lambda line: None) if not r["passed"]] == []


@pytest.mark.parametrize("offence", OFFENCES, ids=lambda o: f"{o.check}: {o.what}".replace(" ", "-"))
def test_offender_is_caught(offence, tmp_path):
    result = run_check(check_named(offence.check), Subject(write(tmp_path, offence.source())))
    assert not result["passed"]
    assert offence.says in result["detail"]


def test_every_check_has_an_offender():
    assert {offence.check for offence in OFFENCES} == set(NAMES)


def test_a_need_that_is_never_read_is_a_warning(tmp_path):
    needs = '; needs = frozenset({"noise_rate", "validation"})'
    path = write(tmp_path, SOUND.replace(SLUG, SLUG + needs))
    result = run_check(check_named("needs"), Subject(path))
    assert result["passed"]
    assert "noise_rate is declared but never read" in result["detail"]
    assert "validation is declared but never read" in result["detail"]


def test_a_line_that_is_never_run_is_a_warning(tmp_path):
    path = write(tmp_path, SOUND.replace(EPOCH, "if epoch > 99:\n            self.steps = 0"))
    result = run_check(check_named("reach"), Subject(path))
    line = Path(path).read_text().splitlines().index("            self.steps = 0") + 1
    assert result["passed"]
    assert f"lines that no check has run: {line}," in result["detail"] + ","


@pytest.mark.parametrize("name", ["clean_labels", "noise_rate"])
def test_a_hole_in_the_harness_is_caught(name, monkeypatch):
    """True labels that a task would hand out, and a need that it would not refuse."""
    monkeypatch.setattr(Task, name, property(lambda task: task.labels), raising=False)
    result = run_check(check_named("clean-labels" if name == "clean_labels" else "needs"), Subject("erm"))
    assert not result["passed"]
    assert f"task.{name} can be read" in result["detail"]


def test_true_labels_are_recognised_in_every_form():
    from bench.check.access import Secrets

    subject = Subject("erm")
    secrets = Secrets(subject.base)
    true = secrets.vectors["the true labels of the training samples"]
    assert not np.array_equal(true, subject.base.method.task.labels.numpy())
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(true), CLASSES)
    for form in (true, true.astype(np.float32), torch.as_tensor(true), true.tolist(), one_hot, one_hot.numpy() * 0.7):
        assert secrets.recognise(form) is not None
    right = true == subject.base.method.task.labels.numpy()
    assert secrets.recognise(right) and secrets.recognise(~right) and secrets.recognise(torch.as_tensor(right).float())
    assert secrets.recognise(subject.base.method.task.labels) is None
    assert secrets.recognise(torch.cat(list(subject.base.method.task.plain_images()))) is None
    wrong = true.copy()
    wrong[0] = (wrong[0] + 1) % CLASSES
    assert secrets.recognise(wrong) is None


# -- the battery itself ------------------------------------------------------------------------------------------------
def test_a_fault_of_the_battery_is_not_a_failed_check():
    def broken(subject):
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        run_check(Check("broken", broken), Subject("erm"))


def test_the_battery_leaves_nothing_behind():
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    check_method("gce", say=lambda line: None, checks=[check_named("trains"), check_named("class-missing")])
    assert difference(before, (torch.get_rng_state(), np.random.get_state(), random.getstate())) is None
    assert Miniature.slug not in datasets()
    assert "check-relabel" not in noises()
    assert Task._grant.__qualname__ == "Task._grant"


def test_what_it_says(tmp_path):
    lines: list[str] = []
    path = write(tmp_path, SOUND.replace(LOSS, "raise RuntimeError('broken')"))
    results = check_method(path, say=lines.append, checks=[check_named(name) for name in ("trains", "size", "needs")])
    assert [result["passed"] for result in results] == [False, True, False]
    assert lines[0] == "offender: epoch level, offender.py"
    assert lines[1].startswith("  FAIL trains")
    assert "a plain run: failed: RuntimeError: broken (offender.py:" in lines[1]
    assert lines[2].startswith("  ok   size")
    assert lines[-1].startswith("offender: 2 of 3 checks failed in ")


def test_a_method_that_never_ends_is_ended(tmp_path, monkeypatch):
    assert Subject("erm").base  # what torch imports with the first optimiser does not count
    monkeypatch.setattr("bench.check.subject.TIME_LIMIT", 0.05)
    monkeypatch.setattr("bench.schedule.limits.MINIMUM_GRACE", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    path = write(tmp_path, SOUND.replace(SETUP, "while True: pass"))
    result = run_check(check_named("trains"), Subject(path))
    assert not result["passed"]
    assert "exceeded the time limit" in result["detail"]
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_running_timer_is_put_back():
    limit_of_this_test = signal.setitimer(signal.ITIMER_REAL, 1000.0)
    try:
        assert Subject("erm").base
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, *limit_of_this_test)


def test_smoke_with_a_wrong_field_is_refused(tmp_path):
    path = write(tmp_path, SOUND.replace('"warmup": 1', '"warm_up": 1'))
    with pytest.raises(FieldError, match="did you mean warmup"):
        Subject(path)


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({"x": 0.1 + 0.2}, {"x": 0.3}, "result.x"),
        ({"x": float("nan")}, {"x": float("nan")}, None),
        ({"x": 0.0}, {"x": -0.0}, "result.x"),
        ({"x": [1, (2, torch.tensor([0.0]))]}, {"x": [1, (2, torch.tensor([-0.0]))]}, "result.x[1][1]"),
        ({"x": 1}, {"y": 1}, "result (keys "),
        ({"x": [1]}, {"x": [1, 2]}, "result.x (lengths 1 and 2)"),
        ({"x": 1}, {"x": True}, "result.x"),
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2, dtype=torch.float64)}, "result.x"),
        ({"x": None}, {"x": None}, None),
    ],
)
def test_difference(a, b, found):
    got = difference(a, b)
    assert got is None if found is None else got is not None and got.startswith(found)


def test_code_lines_counts_what_a_method_does():
    source = '''"""Module."""
import torch
CONSTANT = {"a": 1}
def _cell(x) -> Recipe:
    return Recipe(x)
def helper(x):  # 1
    """Docstring
    of two lines."""
    return x  # 2
class A(Base):  # 3
    """Docstring."""
    slug = "a"
    recipes = (
        1,
    )
    q: float = 0.7  # 4

    # a comment
    @property
    def needs(self):  # 5 with its decorator 6
        return {
            1,
        }  # 7 to 9
'''
    assert code_lines(source) == 9


def test_a_worker_that_dies_is_reported(monkeypatch):
    worker = Worker()
    worker.process.kill()
    worker.process.wait()
    assert not worker.alive
    monkeypatch.setattr("bench.check.outcomes.the_worker", lambda: worker)
    result = run_check(check_named("worker"), Subject("erm"))
    assert not result["passed"]
    assert "the worker process died running it (status -9, it said nothing)" in result["detail"]


# -- the README --------------------------------------------------------------------------------------------------------
def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "methods" / "README.md").read_text(), flags=re.DOTALL)


def test_readme_shows_the_example_files():
    assert readme_blocks("python") == [(EXAMPLES / "my_method.py").read_text()]
    assert readme_blocks("yaml") == [(EXAMPLES / "my_suite.yaml").read_text()]
    assert len((EXAMPLES / "my_method.py").read_text().splitlines()) <= 30


def test_readme_names_what_there_is():
    """The names in the contract exist; a renamed method or need would leave the page behind."""
    from bench.learner import Learner
    from bench.method import NEEDS, LossMethod

    text = (ROOT / "methods" / "README.md").read_text()
    task = ("learner", "batches", "cycle", "logits", "features", "plain_images", "generator", "log")
    for owner, names in (
        (Task, task), (Learner, ("infer", "features", "step")),
        (LossMethod, ("loss", "prepare", "step", "setup", "epoch", "start_epoch", "views", "predict", "clean_scores",
                      "validated", "recipes", "version", "networks", "smoke")),
    ):  # fmt: skip
        for name in names:
            assert hasattr(owner, name) and name in text
    assert all(need in text for need in NEEDS)


def test_example_is_symmetric_cross_entropy():
    """Logits (0, ln 3): p = (1/4, 3/4). Label 0: CE = ln 4, reverse CE = 9.21 * 3/4."""
    from types import SimpleNamespace

    from bench.method import method_class

    method = method_class(str(EXAMPLES / "my_method.py"))(alpha=0.5, beta=2.0)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    got = method.loss(logits, SimpleNamespace(labels=torch.tensor([0, 1])))
    expected = [0.5 * math.log(4) + 2 * 9.21 * 0.75, 0.5 * math.log(4 / 3) + 2 * 9.21 * 0.25]
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float32), rtol=1e-6)


def test_example_passes_bench_check():
    done = CliRunner().invoke(main, ["check", str(EXAMPLES / "my_method.py")])
    assert done.exit_code == 0, done.output
    assert f"my-sce: all {len(CHECKS)} checks passed" in done.output


def test_failed_check_is_exit_code_1_and_json(tmp_path):
    path = write(tmp_path, SOUND.replace(PREDICT, "return self.net.infer(images)"))
    done = CliRunner().invoke(main, ["check", path, "--json"])
    assert done.exit_code == 1
    results = json.loads(done.output)
    assert [result["check"] for result in results] == NAMES
    assert [result["check"] for result in results if not result["passed"]] == ["predictions"]


def test_unknown_method_is_exit_code_2():
    done = CliRunner().invoke(main, ["check", "emr"])
    assert done.exit_code == 2
    assert "did you mean erm" in done.output


def test_example_suite_runs(tmp_path):
    for name in ("my_method.py", "my_suite.yaml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    suite = tmp_path / "my_suite.yaml"
    folder = tmp_path / "results"
    options = ["--executor", "inline", "--tracking", "none", "--results", str(folder)]
    done = CliRunner().invoke(main, ["run", str(suite), *options])
    assert done.exit_code == 0, done.output
    assert "SCE" in done.output and "4 done" in done.output
    records = list(load_records(folder).values())
    assert sorted(record["cell"]["method"]["name"] for record in records) == ["erm", "erm", "my-sce", "my-sce"]
    assert {len(record["curve"]["epoch"]) for record in records} == {2}


def test_entry_point_makes_a_slug(tmp_path, monkeypatch):
    """The group that the README names, as an installed package would declare it."""
    import tomllib

    (group,) = readme_blocks("toml")
    ((name, target),) = tomllib.loads(group)["project"]["entry-points"]["bench.methods"].items()
    shutil.copy(EXAMPLES / "my_method.py", tmp_path)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    methods.cache_clear()
    try:
        assert name in methods()
        result = run_check(check_named("trains"), Subject(name))
        assert result["passed"], result["detail"]
    finally:
        monkeypatch.undo()
        methods.cache_clear()
