"""The command `bench profile`. Parse, call, print."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from bench.cli_options import guarded, parse_only, parse_set

EXIT_CODES = "Exit codes: 0 all methods profiled, 1 some failed, 2 bad usage or suite, 3 environment, 130 interrupted."


@click.command(epilog=EXIT_CODES)
@click.argument("target", metavar="SUITE|METHOD")
@click.option("--only", multiple=True, metavar="AXIS=VALUE[,..]", help="Of these cells of the suite: dataset, noise, rate, method, seed or model.")
@click.option("--cell", metavar="ID", help="This cell of the suite, by the first digits of its id.")
@click.option("--set", "set_", multiple=True, metavar="KEY=VALUE", help="Override a value, as in `bench run`.")
@click.option("--dataset", metavar="NAME", help="For a METHOD  [default: digits]")
@click.option("--noise", metavar="NOISE", help="For a METHOD  [default: symmetric@0.5]")
@click.option("--model", metavar="NAME", help="For a METHOD  [default: tiny-cnn]")
@click.option("--batch-size", type=click.IntRange(min=1), help="For a METHOD  [default: the recipe's]")
@click.option("--epochs", type=click.IntRange(min=2), default=2, show_default=True, help="Epochs to run; the first is not counted.")
@click.option("--as-planned", is_flag=True, help="Leave warm-up and the like as they are, so that later stages may not show.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: what the suite asks for]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: what the suite asks for]")
@click.option("--engine", multiple=True, metavar="KEY=VALUE",
              help="precision, channels_last, compile, deterministic or tf32, in place of the suite's.")  # fmt: skip
@click.option("--ops", is_flag=True, help="List the operators that take most time (torch.profiler, in a run of its own).")
@click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE", help="Write the last epoch as a Chrome trace; one method.")
@click.option("--out", type=click.Path(file_okay=False), metavar="FOLDER", help="Folder of profile.png, .svg and .pdf  [default: results/SUITE]")
@click.option("--figure/--no-figure", default=True, show_default=True, help="Draw the figure.")
@click.option("--data", metavar="DIR", envvar="BENCH_DATA", help="Folder of the data sets that are not embedded.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@guarded
def profile(
    target: str, only: tuple[str, ...], set_: tuple[str, ...], engine: tuple[str, ...], as_json: bool, **options: Any
) -> int:
    """Where the time of an epoch goes, and how much of the device a method uses.

    One cell of each method of a suite is run for a few epochs, here, and no record is written: data, augmentation, forward
    passes, backward, optimiser, the method's own work and evaluation; images per second, forward equivalents, floating-point
    operations against the measured peak of the device, memory.

    \b
    bench profile suites/quickstart.yaml
    bench profile suites/quickstart.yaml --only method=erm,elr --only noise=symmetric@0.5
    bench profile dividemix --batch-size 128 --ops
    """
    from bench.profile import profile as measure
    from bench.profile.choose import is_suite
    from bench.profile.show import print_rich, text

    axes = {name: value for name in ("dataset", "noise", "model", "batch_size") if (value := options.pop(name)) is not None}
    if axes and is_suite(target):
        name = next(iter(axes)).replace("_", "-")
        raise click.UsageError(f"--{name} is for a METHOD; a suite has its own (see --only and --set)")
    report = measure(
        target, only=parse_only(only), set=parse_set(set_), axes=axes, engine=parse_set(engine),
        say=lambda line: click.echo(line, err=True), **options,
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps(report))
    elif sys.stdout.isatty():
        print_rich(report)
    else:
        click.echo(text(report))
    return 0 if all(facts["status"] == "done" for facts in report["methods"]) else 1
