"""`bench table`: published tables, and what is passed on for suites (tests/test_cli.py renders those)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli_table import FORMATS, table
from bench.report import render_paper
from bench.report.schema import names


def run(*arguments: str) -> Any:
    return CliRunner().invoke(table, arguments)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_published_table(fmt: str) -> None:
    done = run("--paper", "scanmix-table3", "--format", fmt)
    assert (done.exit_code, done.output) == (0, render_paper("scanmix-table3", fmt))


def test_the_list_of_published_tables() -> None:
    assert run("--paper", "list").output.split() == list(names())


def test_output(tmp_path: Path) -> None:
    assert run("--paper", "odd-table5", "--output", str(tmp_path / "t.md")).output == ""
    assert (tmp_path / "t.md").read_text() == render_paper("odd-table5", "md")
    done = run("--paper", "odd-table5", "--output", str(tmp_path / "no" / "t.md"))
    assert done.exit_code == 3 and "error: cannot write" in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a suite, or a published table"),
        (["small.yaml", "--paper", "odd-table5"], "one of them"),
        (["--paper", "odd-table6"], "unknown published table 'odd-table6'; did you mean"),
        (["--paper", "odd-table5", "--published"], "as printed"),
        (["--paper", "odd-table5", "--protocol", "best"], "as printed"),
        (["small.yaml", "--protocol", "bets"], "'bets' is not one of"),
    ],
)
def test_usage_mistakes(arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2 and words in " ".join(done.output.split())


def test_what_a_suite_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("bench.api.table", lambda suite, **options: asked.append((suite, options)) or "text\n")
    assert run("s.yaml", "--protocol", "last10", "--published", "--format", "tex").output == "text\n"
    assert run("s.yaml").exit_code == 0
    assert asked == [
        ("s.yaml", {"format": "tex", "protocol": "last10", "published": True, "results": "results"}),
        ("s.yaml", {"format": "md", "protocol": None, "published": False, "results": "results"}),
    ]
