"""Shell completion of suites, cells and methods, and what every command's help says beyond its own words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from bench.cli_options import guarded

EXIT_CODES = "Exit codes: 0 success, 1 something failed or is stale, 2 bad usage or suite, 3 environment, 130 interrupted."
VARIABLE = "_BENCH_COMPLETE"  # as click derives it from the name of the program
INSTALL = {
    "bash": "eval \"$(bench completion bash)\"   in ~/.bashrc",
    "zsh": "eval \"$(bench completion zsh)\"   in ~/.zshrc, after compinit",
    "fish": "bench completion fish > ~/.config/fish/completions/bench.fish",
}  # fmt: skip
_SLUG = re.compile(r"^    slug\s*(?::\s*\w+\s*)?=\s*[\"']([^\"']+)[\"']", re.MULTILINE)
MAX_CELLS = 500


@click.command(epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(sorted(INSTALL)))
@guarded
def completion(shell: str) -> None:
    """Print the script that completes commands, options, suite files, cell ids and methods in a shell.

    \b
    bench completion bash                         print it
    eval "$(bench completion bash)"               use it in this shell, or put this line into ~/.bashrc
    eval "$(bench completion zsh)"                in ~/.zshrc, after compinit
    bench completion fish > ~/.config/fish/completions/bench.fish
    """
    found = get_completion_class(shell)
    if found is None:  # pragma: no cover: click knows these three
        raise click.UsageError(f"click cannot complete in {shell}")
    made = found(click.get_current_context().find_root().command, {}, "bench", VARIABLE)
    click.echo(made.source_template % made.source_vars())  # `source()` would start bash to ask for its version


# -- what can stand there ------------------------------------------------------------------------------------------
class Text(click.ParamType):
    """Any text, with completion; imports nothing heavy and never raises."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(value)

    def candidates(self, ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with contextlib.suppress(Exception):  # a traceback in the middle of a command line helps nobody
            return list(self.candidates(ctx, incomplete))
        return []


class SuiteFile(Text):
    """YAML files below the folder `suites`, and any file."""

    def candidates(self, ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
        names = sorted(path.as_posix() for path in Path("suites").rglob("*.yaml"))
        found = [name for name in names if name.startswith(incomplete)]
        yield from (CompletionItem(name) for name in found)
        if not found:
            yield CompletionItem(incomplete, type="file")


class Cell(Text):
    """Ids of the records in the results folder."""

    def candidates(self, ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
        from bench.records import record_files

        seen: set[str] = set()
        for folder in sorted(Path(ctx.params.get("results") or "results").glob("*")):
            for path in record_files(folder):
                if path.stem.startswith(incomplete.lower()) and path.stem not in seen and len(seen) < MAX_CELLS:
                    seen.add(path.stem)
                    yield CompletionItem(path.stem, help=folder.name)


class Method(Text):
    """Slugs as they stand in the files of `methods/`, which are read and not imported; and files."""

    suites = False

    def candidates(self, ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
        import methods

        found = []
        for place in methods.__path__:
            for path in sorted(Path(place).glob("[!_]*.py")):
                found += [slug for slug in _SLUG.findall(path.read_text(encoding="utf-8")) if slug.startswith(incomplete)]
        yield from (CompletionItem(slug) for slug in sorted(set(found)))
        if self.suites:
            yield from SuiteFile().candidates(ctx, incomplete)
        elif not found:
            yield CompletionItem(incomplete, type="file")


class Target(Method):
    """A method or a suite."""

    suites = True


class Folder(Text):
    def candidates(self, ctx: click.Context, incomplete: str) -> Iterator[CompletionItem]:
        yield CompletionItem(incomplete, type="dir")


#: by the metavar of a parameter
_TYPES: dict[str, type[Text]] = {
    "SUITE": SuiteFile, "CELL": Cell, "METHOD_OR_FILE": Method, "METHOD": Method, "SUITE|METHOD": Target, "DIR": Folder,
}  # fmt: skip


# -- every command -------------------------------------------------------------------------------------------------
def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that call it, those of groups too; groups themselves are left out."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        else:
            yield (*words, name), command


def polish(main: click.Group) -> None:
    """Give every command exit codes in its help and completion of its arguments, where it has none of its own."""
    for _, command in commands(main):
        command.epilog = command.epilog or EXIT_CODES
        for param in command.params:
            metavar = (param.metavar or (param.name or "").upper() if isinstance(param, click.Argument) else param.metavar) or ""
            kind = _TYPES.get(metavar.strip("[].").removesuffix("]").rstrip("."))
            if kind is not None and param.type is click.STRING:
                param.type = kind()
