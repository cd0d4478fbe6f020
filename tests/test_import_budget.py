"""What each command may load, and which room may import which: the arrows of the design."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished import finish

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "torchvision", "timm", "ray", "mlflow", "faiss", "sklearn", "scipy", "pandas", "matplotlib")
SOURCES = sorted([*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").glob("*.py")])

SPY = """
import atexit, sys
heavy = {heavy!r}
atexit.register(lambda: print("LOADED", *sorted(set(heavy) & set(sys.modules)), file=sys.stderr))
sys.argv = {argv!r}
{code}
"""


def loaded(folder: Path, *argv: str, code: str = "from bench.cli import main; main()") -> set[str]:
    """The heavy packages that a command has loaded when it ends; it must succeed."""
    script = SPY.format(heavy=HEAVY, argv=["bench", *argv], code=code)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stderr.strip().splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished suite and its results."""
    path = tmp_path_factory.mktemp("finished")
    text = "datasets: digits\nnoises: [none, symmetric@0.5]\nmethods: [erm, co-teaching]\ntraining: {epochs: 1}\n"
    (path / "small.yaml").write_text(text)
    finish(path / "small.yaml", path / "results")
    return path


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["run", "--help"],
        ["status", "small.yaml"],
        ["status", "small.yaml", "--json"],
        ["table", "small.yaml"],
        ["table", "small.yaml", "--format", "html", "--protocol", "selected"],
        ["ls", "noises"],
        ["ls", "suites"],
    ],
    ids=" ".join,
)
def test_reading_commands_load_nothing_heavy(folder: Path, argv: list[str]) -> None:
    assert loaded(folder, *argv) == set()


def test_show_loads_nothing_heavy(folder: Path) -> None:
    (first, *_) = sorted((folder / "results" / "small").glob("[0-9a-f]*.json"))
    assert loaded(folder, "show", first.stem[:10], "--no-origins") == set()
    assert loaded(folder, "show", first.stem[:10], "--json") == set()


@pytest.mark.parametrize(
    "code", ["import bench", "import bench; bench.load_records('results')", "import bench; bench.table('small.yaml')"]
)
def test_the_package_loads_nothing_heavy(folder: Path, code: str) -> None:
    assert loaded(folder, code=code) == set()


def test_plan_loads_torch_and_no_more(folder: Path) -> None:
    assert loaded(folder, "plan", "small.yaml", "--values") <= {"torch"}


def test_a_run_with_nothing_to_do_loads_torch_and_no_more(folder: Path) -> None:
    loaded(folder, "run", "small.yaml")  # renders the figure
    assert loaded(folder, "run", "small.yaml") <= {"torch"}


# -- who imports what ----------------------------------------------------------------------------------------------
def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, at import time of the module) of each import, without those for type checkers alone."""
    tree = ast.parse(path.read_bytes())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in lazy


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    ("package", "home"),
    [("ray", "bench/schedule/ray.py"), ("mlflow", "bench/track.py"), ("faiss", "bench/ops/neighbours.py")],
)
def test_a_replaceable_package_is_imported_in_one_module_lazily(package: str, home: str) -> None:
    places = {
        (named(path), early) for path in SOURCES for name, early in imports(path) if name.split(".")[0] == package
    }
    assert places == {(home, False)}


@pytest.mark.parametrize("package", ["sklearn", "pandas", "matplotlib", "scipy", "tabulate", "rich", "torchvision", "timm"])
def test_other_heavy_packages_are_imported_lazily(package: str) -> None:
    early = {
        named(path) for path in SOURCES for name, early in imports(path) if early and name.split(".")[0] == package
    }
    assert early == set()


ANYTHING = {
    "api", "cell", "check", "cleaning", "data", "describe", "doctor", "engine", "estimate", "execute", "fields", "interrupts",
    "kinds", "learner", "live", "merging", "method", "method_page", "models", "needs", "noise", "ops", "outcome", "outputs",
    "plan", "progress", "provenance", "records", "registry", "report", "safe_text", "schedule", "show", "stages", "suite",
    "track", "track_store", "training", "trial", "tune", "watch", "yaml_source",
}  # fmt: skip
COMMANDS = {
    "cli_cache", "cli_completion", "cli_daily", "cli_data", "cli_figure", "cli_leaderboard", "cli_profile", "cli_site",
    "cli_stats", "cli_table",
}  # fmt: skip
#: room -> the rooms it may import; the table of the design, with the small modules that it does not name
ARROWS: dict[str, set[str]] = {
    "fields": set(),
    "cell": set(),
    "yaml_source": set(),
    "provenance": set(),
    "ops": set(),
    "report": {"records", "cell", "needs"},
    "records": {"cell"},
    "registry": {"fields"},
    "data": {"cell", "fields", "registry"},
    "models": {"fields", "registry"},
    "interrupts": set(), "locks": set(),
    "stages": {"cell", "locks", "records"},
    "noise": {"cell", "data", "fields", "interrupts", "learner", "models", "ops", "records", "registry", "stages", "training"},
    "engine": set(),
    "training": {"fields"},
    "learner": {"engine", "fields", "training"},
    "needs": set(),
    "method": {"learner", "fields", "needs", "registry"},
    "method_page": {"method", "records", "report"},
    "watch": {"fields"},
    "kinds": {"fields", "plan", "suite", "tune.space", "yaml_source"},
    "suite": {"cell", "fields", "kinds", "method", "report.plots", "report.spec", "training", "watch", "yaml_source"},
    "plan": {
        "cell", "data", "fields", "kinds", "method", "models", "noise", "records", "suite", "training", "trial.evaluate", "tune",
        "watch", "yaml_source",
    },
    "tune": {"cell", "fields", "kinds", "plan", "records", "schedule", "training", "yaml_source"},
    "trial": {
        "cell", "data", "engine", "fields", "interrupts", "learner", "method", "models", "noise", "ops", "provenance", "records",
        "stages", "training", "watch",
    },
    "schedule": {"cell", "interrupts", "locks", "provenance", "records", "safe_text", "trial"},
    "track": {"cell", "records", "track_files", "track_rows", "track_store"},
    "track_store": set(),
    "track_files": {"records"},
    "track_rows": {"cell", "records"},
    "progress": {"live", "records", "safe_text", "schedule"},
    "safe_text": set(),
    "live": {"safe_text"},
    "estimate": {"cell", "live", "records"},
    "doctor": {"describe", "live", "safe_text", "stages", "track", "track_store"},
    "show": {"api", "describe", "fields", "live", "outcome", "outputs", "plan", "records", "safe_text", "yaml_source"},
    "merging": {"fields", "records"},
    "cleaning": {"live", "outcome", "records", "stages"},
    "check": ANYTHING - {"api", "describe", "execute", "outputs", "plan", "progress", "report", "suite", "track"},
    "describe": ANYTHING,
    "profile": {
        "api", "cell", "describe", "engine", "fields", "learner", "method", "outcome", "plan", "report", "stages", "suite",
        "trial", "yaml_source",
    },
    "outcome": {"plan"},
    "execute": {
        "engine", "outcome", "noise", "plan", "progress", "records", "schedule", "suite", "track", "trial",
    },
    "outputs": {"method", "outcome", "plan", "provenance", "records", "report", "tune"},
    "api": {
        "execute", "outcome", "outputs", "plan", "records", "report", "safe_text", "stages", "suite", "track", "tune",
        "yaml_source",
    },
    "cli": ANYTHING | COMMANDS | {"cli_options", "profile"},
    **{command: ANYTHING | {"cli_options", "profile"} for command in sorted(COMMANDS)},
    "cli_options": {"fields", "records", "safe_text", "suite", "yaml_source"},
}  # fmt: skip


def room(path: Path) -> str:
    parts = path.relative_to(ROOT / "bench").with_suffix("").parts
    return parts[0]


def test_every_room_has_its_arrows() -> None:
    rooms = {room(path) for path in SOURCES if path.is_relative_to(ROOT / "bench")} - {"__init__"}
    assert rooms == set(ARROWS), "a new room needs a line in ARROWS and in the design"


@pytest.mark.parametrize("name", ARROWS)
def test_arrows_point_one_way(name: str) -> None:
    allowed = ARROWS[name] | {name}
    wrong = [
        f"{named(path)} imports {target}"
        for path in SOURCES
        if path.is_relative_to(ROOT / "bench") and room(path) == name
        for target, _ in imports(path)
        if target.startswith("bench.") and target != "bench.__version__"
        if not any((target + ".").startswith(f"bench.{ally}.") for ally in allowed)
    ]
    assert wrong == []


def test_nothing_imports_the_command_line() -> None:
    places = [named(path) for path in SOURCES for name, _ in imports(path) if (name + ".").startswith("bench.cli.")]
    assert places == []


def test_the_package_itself_imports_nothing_early() -> None:
    names = [name for name, early in imports(ROOT / "bench" / "__init__.py") if early]
    assert [name for name in names if not name.startswith(("__future__", "typing"))] == []


METHODS = [path for path in SOURCES if path.parent.name == "methods"] + sorted(
    (ROOT / "tests" / "examples").glob("*.py")
)


@pytest.mark.parametrize("path", METHODS, ids=named)
def test_a_method_imports_the_contract_the_ops_and_torch(path: Path) -> None:
    allowed = ("bench.method.", "bench.ops.", "bench.fields.", "bench.learner.", "methods.", "torch.")
    wrong = [
        name
        for name, _ in imports(path)
        if not (name + ".").startswith(allowed) and name.split(".")[0] not in sys.stdlib_module_names
    ]
    assert wrong == []


def test_the_report_reads_records_only() -> None:
    """Pure: bytes out of records, so nothing of it may reach for a clock, a network or a process."""
    forbidden = {"torch", "ray", "mlflow", "time", "datetime", "socket", "subprocess", "random", "urllib", "requests"}
    places = {
        (named(path), name)
        for path in SOURCES
        if path.is_relative_to(ROOT / "bench" / "report")
        for name, _ in imports(path)
        if name.split(".")[0] in forbidden and not name.startswith("urllib.parse")
    }
    assert places == set()


def test_the_finished_suite_is_finished(folder: Path) -> None:
    """The budgets above are those of a suite that is done."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "status", "small.yaml", "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0 and json.loads(done.stdout)["counts"] == {"done": 4}
