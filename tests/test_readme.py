"""What the manuals say to type is typed here: every command parses, and those that are cheap run.

Commands that install something are checked for their syntax. Runs are made with one worker process and without MLflow.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench import cli
from bench.data import load as load_data
from bench.plan import make_plan
from bench.records import load_record, record_files
from bench.suite import MATCH_KEYS, Suite, load_suite
from bench.yaml_source import SuiteError

ROOT = Path(__file__).resolve().parent.parent
MANUALS = ["README.md", "suites/README.md", "results/README.md", "methods/README.md"]
INLINE = ("--executor", "inline", "--tracking", "none")
SLOW = {"check"}  # the battery has tests of its own


def blocks(manual: str, language: str = "") -> list[str]:
    """The fenced blocks of a language; of none by default."""
    text = (ROOT / manual).read_text()
    return [body for name, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if name == language]


def lines() -> Iterator[tuple[str, str]]:
    for manual in MANUALS:
        for language in ("", "sh", "bash", "console"):
            for block in blocks(manual, language):
                yield from ((manual, line) for line in block.splitlines() if line.strip())


def words(line: str) -> list[str] | None:
    """The arguments of the `bench` command in a line, without its comment; None when there is none."""
    for part in line.split("&&"):
        found = shlex.split(part.replace("<", "'<").replace(">", ">'"), comments=True)
        if found and Path(found[0]).name == "bench":
            return found[1:]
    return None


COMMANDS = [(manual, line, found) for manual, line in lines() if (found := words(line)) is not None]
NAMES = [f"{manual}: {' '.join(found)}"[:90] for manual, _, found in COMMANDS]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has: the suites, the example of a method, the committed results, and those of another machine."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "suites", folder / "suites")
    shutil.copytree(ROOT / "methods", folder / "methods")
    for example in (ROOT / "tests" / "examples").glob("my_*"):
        shutil.copy(example, folder)
    shutil.copytree(ROOT / "results", folder / "results", ignore=shutil.ignore_patterns(".work", "mlflow*"))
    other = folder.parent / "other" / "results" / "quickstart"
    other.mkdir(parents=True)
    for path in record_files(folder / "results" / "quickstart")[:3]:
        shutil.copy(path, other)
    return folder


def run(folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.chdir(folder)
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


def test_the_manuals_have_commands() -> None:
    commands = {found[0] for _, _, found in COMMANDS}
    assert {"run", "plan", "status", "table", "show", "ls", "check", "doctor"} <= commands
    assert len(COMMANDS) >= 10


@pytest.mark.parametrize(("manual", "line", "arguments"), COMMANDS, ids=NAMES)
def test_each_command_is_understood(manual: str, line: str, arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in cli.main.commands, f"{manual}: {line}"
    cli.main.commands[name].make_context(name, list(rest))  # raises on an unknown option, choice or missing argument


@pytest.mark.parametrize("line", [line for manual, line in lines() if "&&" in line or "pip " in line or "tox" in line])
def test_installing_commands_are_shell(line: str) -> None:
    done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "venv .venv" in line, "it works in a fresh clone"


CHEAP = [
    (line, found) for _, line, found in COMMANDS if found[0] not in {"run", *SLOW} and "&&" not in line and "--json" not in line
]


@pytest.mark.parametrize(("line", "arguments"), CHEAP, ids=[" ".join(found) for _, found in CHEAP])
def test_reading_commands_run(place: Path, monkeypatch: pytest.MonkeyPatch, line: str, arguments: list[str]) -> None:
    known = record_files(place / "results" / "quickstart")[0].stem
    arguments = [known if re.fullmatch("<.*>", argument) else argument for argument in arguments]
    done = run(place, arguments, monkeypatch)
    assert done.exit_code == 0, f"{line}\n{done.output}"
    assert done.stdout.strip()


RUNS = [(line, found) for _, line, found in COMMANDS if found[0] == "run"]


@pytest.mark.parametrize(("line", "arguments"), RUNS, ids=[" ".join(found) for _, found in RUNS])
def test_runs_run(place: Path, monkeypatch: pytest.MonkeyPatch, line: str, arguments: list[str]) -> None:
    """As written, but cut to two cheap methods and two epochs where it would run a whole suite of the checkout."""
    if "--only" not in arguments and "quickstart" in line:
        arguments = [*arguments, "--only", "method=erm,elr", "--only", "seed=0", "--set", "training.epochs=2"]
    done = run(place, [*arguments, *INLINE, "--results", "runs"], monkeypatch)
    assert done.exit_code == 0, f"{line}\n{done.output}"
    assert re.search(r": \d+ done; ran \d+ now", done.output)


def test_the_results_manual_names_every_part_of_a_record(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(place, ["run", "my_suite.yaml", *INLINE, "--results", "parts"], monkeypatch)
    assert done.exit_code == 0, done.output
    manual = (ROOT / "results" / "README.md").read_text()
    keys = set(load_record(record_files(place / "parts" / "my_suite")[0])) - {"schema", "id", "suite"}
    assert {key for key in keys if f"`{key}`" not in manual} == set()


# -- the example of a suite ----------------------------------------------------------------------------------------
def test_the_example_suites_show_every_key_and_are_valid(tmp_path: Path) -> None:
    """One whole suite, and of every other kind the keys that it adds."""
    (tmp_path / "base.yaml").write_text("title: base\n")
    shutil.copy(ROOT / "tests" / "examples" / "my_method.py", tmp_path / "my_method.py")
    shown: set[str] = set()
    for number, text in enumerate(blocks("suites/README.md", "yaml")):
        path = tmp_path / f"example{number}.yaml"
        path.write_text(text if "datasets:" in text else f"datasets: digits\nnoises: none\n{text}")
        suite, source = load_suite(path)
        shown |= set(suite.model_fields_set)
        try:
            make_plan(suite, source)
        except SuiteError as error:  # an example of a rule need not match anything in the example
            assert [str(p) for p in error.problems if "no cell" not in p.message] == []
    assert set(Suite.model_fields) - shown - {"name", "description"} == set(), "the manual shows each key"


def test_data_of_your_own_is_as_the_manual_says(tmp_path: Path) -> None:
    """Its suite, with a tree and a list of that form."""
    from PIL import Image

    (text,), (rows,) = blocks("suites/README.md", "yml"), blocks("suites/README.md", "csv")
    for name in ("cat", "dog"):
        (tmp_path / "data" / "mine" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "data" / "mine" / name / f"{number:02}.png")
    (tmp_path / "data" / "mine" / "list.csv").write_text(rows)
    (tmp_path / "own.yaml").write_text(text)
    plan = make_plan(*load_suite(tmp_path / "own.yaml"), data=tmp_path / "data")
    folder, listed = (load_data(entry.cell["dataset"], tmp_path / "data") for entry in plan.entries)
    assert (len(folder.train), len(folder.test), folder.class_names) == (16, 4, ("cat", "dog")), "a fifth is for testing"
    assert (len(listed.train), len(listed.test), listed.group_names) == (1, 1, ("day", "night"))
    assert listed.train.labels.tolist() == [0] and listed.given_labels is not None and listed.given_labels.tolist() == [1]


@pytest.mark.parametrize("manual", ["suites/README.md"])
def test_the_manual_names_axes_and_policies(manual: str) -> None:
    text = (ROOT / manual).read_text()
    policies = ("paper", "fixed", "matched", "none")
    assert {name for name in (*MATCH_KEYS, *policies) if f"`{name}`" not in text} == set()


def test_the_readme_states_the_exit_codes_of_the_command() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    for number, meaning in re.findall(r"(\d+) ([a-z]+ [a-z]+|environment|interrupted)", cli.EXIT_CODES):
        assert f"{number} {meaning.split()[0]}" in text


# -- links ---------------------------------------------------------------------------------------------------------
PAGES = [*MANUALS, *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
PAGES += [name for name in ("tests/README.md", "CHANGELOG.md") if (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / page).read_text())
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (ROOT / page).parent.joinpath(target).exists()] == []
