"""Which pages a results folder has, and whether they are fresh."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.records import write_atomic
from bench.report.leaderboard import Board
from bench.report.leaderboard_read import read_board, suite_folders
from bench.report.leaderboard_text import render_board, suite_readme

_NAME = re.compile(r"^name:\s*['\"]?([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


def pages(results: Path, tuning: bool = False) -> tuple[Board, dict[Path, str]]:
    """The leaderboard, and the text of every page: the leaderboard and one README for each suite (the former alone when
    `tuning`). Every record is read once and checked."""
    results = Path(results)
    board = read_board(results, tuning)
    if tuning:
        return board, {results / "LEADERBOARD-all.md": render_board(board)}
    texts = {results / "LEADERBOARD.md": render_board(board)}
    files = suite_files(results.resolve().parent / "suites")
    for folder in suite_folders(results):
        corrupt = {name.partition("/")[2]: why for name, why in board.corrupt.items() if name.startswith(f"{folder.name}/")}
        command = files.get(folder.name, f"{folder.name}.yaml")
        texts[folder / "README.md"] = suite_readme(folder, board.states[folder.name], corrupt, shlex.quote(command))
    return board, texts


def suite_files(suites: Path) -> dict[str, str]:
    """Suite files by the suite's name, relative to the folder that holds `suites`."""
    found: dict[str, str] = {}
    for path in sorted(suites.rglob("*.yaml")):
        match = _NAME.search(path.read_text(encoding="utf-8", errors="replace"))
        found.setdefault(match.group(1) if match else path.stem, path.relative_to(suites.parent).as_posix())
    return found


def stale(texts: Mapping[Path, str]) -> list[Path]:
    return [path for path, text in texts.items() if not path.exists() or path.read_bytes() != text.encode()]


def write_pages(texts: Mapping[Path, str], chosen: Sequence[Path]) -> None:
    for path in chosen:
        write_atomic(path, texts[path].encode())
