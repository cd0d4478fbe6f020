"""What must never happen: foreign code run unasked, a pickle trusted, a password written down, a terminal taken over."""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished import finish
from test_cli import INLINE, SMALL, command, here

from bench.records import load_record, load_records, record_files, write_record
from bench.safe_text import printable, without_credentials

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").rglob("*.py")])
SECRET = "hunter2"
#: where each may be called, and why that is safe
ALLOWED = {
    "exec": {"bench/method.py"},  # a method's file that the user named
    "compile": {"bench/method.py", "bench/check/source.py"},  # the second only looks whether a method's file compiles
    "pickle.load": {"bench/check/worker.py"},  # from our own child process, through its pipe
    "pickle.loads": {"bench/schedule/ray.py"},  # the error of a trial, which Ray wrote in a folder of ours
}


# -- code ----------------------------------------------------------------------------------------------------------
def calls() -> Iterator[tuple[str, int, str, ast.Call]]:
    """(file, line, dotted name, call) of every call in the package and the methods."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                yield path.relative_to(ROOT).as_posix(), node.lineno, ast.unparse(node.func), node


def test_no_text_is_run_as_code_and_no_pickle_is_trusted() -> None:
    forbidden = {
        "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads",
        "joblib.load", "cloudpickle.load", "cloudpickle.loads", "dill.load", "shelve.open", "os.system", "os.popen",
        "subprocess.getoutput",
        "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader",
        "pandas.read_pickle", "pd.read_pickle",
    }  # fmt: skip
    found = [(file, line, name) for file, line, name, _ in calls() if name in forbidden and file not in ALLOWED.get(name, set())]
    assert found == []
    assert len(SOURCES) > 100 and any(name == "exec" for _, _, name, _ in calls()), "this test sees the calls"


def test_tensors_and_arrays_are_loaded_without_pickles() -> None:
    def given(call: ast.Call, name: str) -> object:
        return next((ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg == name), None)

    loads = [(file, line, call) for file, line, name, call in calls() if name == "torch.load"]
    assert loads and [(file, line) for file, line, call in loads if given(call, "weights_only") is not True] == []
    arrays = [(file, line, call) for file, line, name, call in calls() if name in ("np.load", "numpy.load")]
    assert arrays and [(file, line) for file, line, call in arrays if given(call, "allow_pickle")] == []
    shells = [(file, line) for file, line, name, call in calls() if name.startswith("subprocess.") and given(call, "shell")]
    assert shells == []


def test_the_restricted_unpickler_is_the_only_one() -> None:
    found = [
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases)
    ]
    assert found == ["bench/data/_unpickler.py"]


def test_nothing_listens_beyond_this_machine_unless_asked() -> None:
    """Ray's dashboard is off in clusters of ours, and neither code nor manual tells a server to listen everywhere."""
    starts = [call for file, _, name, call in calls() if name == "ray.init"]
    local = [call for call in starts if call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == "local"]
    assert local and all("include_dashboard=False" in ast.unparse(call) for call in local)
    manuals = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "suites").rglob("*.md"), *SOURCES]
    said = [path.name for path in manuals if "0.0.0.0" in path.read_text(encoding="utf-8")]
    assert said == []


def test_code_is_loaded_only_from_paths_that_the_suite_names(tmp_path: Path) -> None:
    """A file that merely lies there is never imported, whatever its name; one that the suite names is."""
    trap = "from pathlib import Path\nPath('sprung-{}').touch()\n"
    for name in ("erm.py", "methods.py", "bench.py", "torch.py", "yaml.py", "sitecustomize.py", "conftest.py", "mine.py"):
        (tmp_path / name).write_text(trap.format(name))
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "evil.py").write_text(trap.format("evil"))
    (tmp_path / "small.yaml").write_text(SMALL)
    done = command(tmp_path, "plan", "small.yaml")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("sprung-*")) == []
    (tmp_path / "named.yaml").write_text(SMALL.replace("erm", "./mine.py"))
    assert command(tmp_path, "plan", "named.yaml").returncode == 2, "it defines no method"
    assert [path.name for path in tmp_path.glob("sprung-*")] == ["sprung-mine.py"]


OBJECTS = ("!!python/object/apply:os.system ['touch sprung']", "!!python/name:os.system", "!!python/module:os")


@pytest.mark.parametrize("text", OBJECTS)
def test_yaml_makes_no_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "small.yaml").write_text(SMALL.replace("seeds: [0, 1]", f"title: {text}"))
    done = here(tmp_path, monkeypatch, "plan", "small.yaml")
    assert done.exit_code == 2 and not (tmp_path / "sprung").exists()
    done = here(tmp_path, monkeypatch, "plan", "small.yaml", "--set", f"training.lr={text}")
    assert done.exit_code == 2 and not (tmp_path / "sprung").exists()


# -- credentials ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://u:p@host:5000/x", "http://host:5000/x"),
        ("at postgresql+psycopg2://u:p@ss@db/mlflow, then", "at postgresql+psycopg2://db/mlflow, then"),
        ("'https://token@host/' and ray://u:p@10.0.0.1:10001", "'https://host/' and ray://10.0.0.1:10001"),
        ("s3://bucket/a?X-Amz-Signature=abc&b=1&secret_key=d", "s3://bucket/a?X-Amz-Signature=***&b=1&secret_key=***"),
        ("u:p@10.0.0.1:6379 does not answer", "10.0.0.1:6379 does not answer"),
        ("{'Authorization': 'Basic dTpw'}", "{'Authorization': 'Basic ***'}"),
        ("http://host/a@b and me@example.org", "http://host/a@b and me@example.org"),
        ("noise: symmetric@0.5, erm:asymmetric@0.4 at 3:4", "noise: symmetric@0.5, erm:asymmetric@0.4 at 3:4"),
        ("", ""),
    ],
)
def test_credentials_are_taken_out_of_any_text(text: str, clean: str) -> None:
    assert without_credentials(text) == clean == without_credentials(clean)


def held_by(folder: Path) -> list[str]:
    """Files below a folder that hold the secret."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


RAISES = """\
from bench.method import LossMethod

class Leaks(LossMethod):
    slug = "leaks"
    def loss(self, logits, batch):
        raise ConnectionError(f"cannot reach {place} \\x1b[31m")

place = "https://fake:" + "hunter" + "2@store.example.org/data"
"""


def test_a_password_in_an_exception_is_written_nowhere(tmp_path: Path) -> None:
    """Records, logs, tables, the MLflow store with its params and tags, and what the commands print."""
    (tmp_path / "leaks.py").write_text(RAISES)
    text = SMALL.replace("[erm, gce]", "[./leaks.py]").replace("[none, symmetric@0.5]", "none").replace("[0, 1]", "[0]")
    (tmp_path / "suite.yaml").write_text(text)
    done = command(tmp_path, "run", "suite.yaml", "--executor", "inline")
    assert done.returncode == 1, done.stderr
    (record,) = load_records(tmp_path / "results" / "suite").values()
    assert "cannot reach https://store.example.org/data" in record["reason"] and "store.example.org" in record["traceback"]
    assert (tmp_path / "results" / "mlflow.db").stat().st_size > 0 and list(tmp_path.rglob("*.log"))
    assert held_by(tmp_path) == []
    reading = (("status", "suite.yaml"), ("show", record["id"]), ("table", "suite.yaml"))
    for one in (done, *(command(tmp_path, *words) for words in reading)):
        assert SECRET not in one.stdout + one.stderr and "\x1b" not in one.stdout + one.stderr, one.args


@pytest.mark.parametrize(
    "options",
    [
        ("--executor", "inline", "--tracking", f"http://fake:{SECRET}@127.0.0.1:9"),
        ("--executor", "inline", "--tracking", f"postgresql://fake:{SECRET}@127.0.0.1:9/mlflow"),
        ("--executor", "inline", "--tracking", f"sqlite:////proc/none/x.db?password={SECRET}"),
        ("--tracking", "none", "--address", f"ray://fake:{SECRET}@127.0.0.1:9"),
        ("--tracking", "none", "--address", f"fake:{SECRET}@127.0.0.1:9"),
    ],
    ids=["http", "postgresql", "sqlite", "ray", "ray-bare"],
)
def test_a_password_in_an_address_is_neither_printed_nor_written(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done: subprocess.CompletedProcess[str] = command(tmp_path, "run", "small.yaml", *options)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr and held_by(tmp_path) == []


# -- what is printed -----------------------------------------------------------------------------------------------
def test_text_that_a_terminal_would_obey_is_printed_as_question_marks() -> None:
    assert printable("a\x1b]0;title\x07b\r\x9b31m\u202ec\n\té λ") == "a?]0;title?b??31m?c\n\té λ"


def test_reading_commands_print_no_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    finish(tmp_path / "small.yaml", tmp_path / "results")
    path = record_files(tmp_path / "results" / "small")[0]
    record = {**load_record(path), "status": "failed", "metrics": {}, "reason": "\x1b[2Jgone\x07", "traceback": "\x1b[31mred"}
    record["warnings"] = ["\x1b]0;mine\x07"]
    write_record(path.parent, record)
    for words in (("status", "small.yaml"), ("show", path.stem, "--no-origins"), ("run", "small.yaml", *INLINE)):
        done = here(tmp_path, monkeypatch, *words)
        assert "?[2Jgone?" in done.output and not set(done.output) & set("\x1b\x07"), words
    assert json.loads(here(tmp_path, monkeypatch, "show", path.stem, "--json").stdout)["reason"] == "\x1b[2Jgone\x07"
