"""What the command modules share: exit codes for our errors, and the syntax of filters and overrides."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

RESULTS = click.option("--results", default="results", show_default=True, metavar="DIR", help="Where records are kept.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def guarded(command: Callable[..., int | None]) -> Callable[..., None]:
    """Turn our exceptions into messages and exit codes; anything else is a bug and keeps its traceback."""

    @wraps(command)
    def wrapper(**options: Any) -> None:
        from bench.fields import FieldError
        from bench.records import RecordError
        from bench.yaml_source import SuiteError

        try:
            code = command(**options) or 0
        except SuiteError as error:
            count = len(error.problems)
            click.echo(f"error: {count} problem{'s' if count > 1 else ''} in the suite", err=True)
            for problem in error.problems:
                _say(f"  {problem}")
            code = 2
        except FieldError as error:
            _say(f"error: {error}")
            code = 2
        except RecordError as error:
            _say(f"error: {error}")
            code = 1
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            code = 130
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads on
        except OSError as error:  # a file or folder that cannot be read or written, or a disk that is full
            what = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error) or type(error).__name__
            _say(f"error: {what}")
            code = 3
        except Exception as error:
            if type(error).__name__ not in ("EnvironmentProblem", "DataError"):
                raise
            _say(f"error: {error}")
            code = 3
        sys.stdout.flush()
        sys.exit(code)

    return wrapper


def note_no_results(results: str) -> None:
    """A mistyped --results must not look like a suite that has not been run."""
    if not Path(results).is_dir():
        click.echo(f"note: there is no results folder {results}", err=True)


def _say(message: str) -> None:
    """An error message; what it quotes may hold the password of an address, or characters that a terminal obeys."""
    from bench.safe_text import printable, without_credentials

    click.echo(printable(without_credentials(message)), err=True)


def parse_only(values: tuple[str, ...]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for value in values:
        axis, _, text = value.partition("=")
        # a comma inside of brackets or quotes belongs to the name: symmetric@0.5 (touched=coin, own_class=False)
        names = [name.strip().strip('"') for name in re.findall(r'(?:"[^"]*"|\([^)]*\)|[^,])+', text)]
        if not any(names):
            raise click.BadParameter(f"{value!r} is not AXIS=VALUE[,VALUE..]; for example --only method=erm,elr", param_hint="--only")
        result.setdefault(axis.strip(), []).extend(name for name in names if name)
    return result


def parse_set(values: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    result: dict[str, Any] = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not KEY=VALUE; for example --set training.epochs=5", param_hint="--set")
        try:
            result[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise click.BadParameter(f"the value of {value!r} is not understood; quote it as in YAML", param_hint="--set") from None
    return result


def parse_seeds(value: str | None) -> list[int] | None:
    """`3` is the seeds 0, 1, 2; `3,` is the seed 3; `0,4,7` are these."""
    if value is None:
        return None
    from bench.suite import seed_list

    try:
        numbers = [int(part) for part in value.split(",") if part.strip()]
        seeds = seed_list(numbers if "," in value else numbers[0])
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError
    except (ValueError, IndexError):
        message = f"{value!r} is neither a number of seeds nor a list of different seeds such as 0,4,7"
        raise click.BadParameter(message, param_hint="--seeds") from None
    return seeds
