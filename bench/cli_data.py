"""The commands about data and label noise: `bench data ...` and `bench noise ...`. Parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from bench.cli_options import guarded, parse_set

ROOT = click.option(
    "--root", "--data", "root", metavar="DIR", envvar="BENCH_DATA", help="Folder of the data sets [default: data]."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
SET = click.option("--set", "set_", multiple=True, metavar="FIELD=VALUE", help="A field of the data set.")
SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="As in a suite.")


@click.group()
def data() -> None:
    """Examine data sets on disk; download those that can be; pack pictures for fast reading."""


@data.command()
@click.argument("name", metavar="DATASET")
@ROOT
@SET
@click.option("--deep", is_flag=True, help="Verify every byte of the packs too.")
@JSON
@guarded
def check(name: str, root: str | None, set_: tuple[str, ...], deep: bool, as_json: bool) -> int:
    """Say what is found, what is missing and where it belongs, and compare counts with the official ones.

    \b
    bench data check cifar10 --root ~/data
    """
    from bench.data.tools import check as examine

    report = examine(name, root, parse_set(set_), deep=deep)
    click.echo(json.dumps(report.as_json()) if as_json else report.as_text())
    return 0 if report.ok else 3


@data.command()
@click.argument("name", metavar="DATASET")
@ROOT
@JSON
@guarded
def get(name: str, root: str | None, as_json: bool) -> int:
    """Download cifar10 or cifar100 into the data folder and check it there. Nothing is ever downloaded unasked.

    \b
    bench data get cifar10 --root ~/data
    """
    from bench.data.tools import get as download

    report = download(name, root)
    click.echo(json.dumps(report.as_json()) if as_json else report.as_text())
    return 0 if report.ok else 3


@data.command()
@click.argument("name", metavar="DATASET")
@click.option(
    "--format", "form", type=click.Choice(["raw", "encoded"]), default="raw", show_default=True,
    help="raw: decoded pixels, fast and large. encoded: the files as they are, one after the other.",
)  # fmt: skip
@ROOT
@SET
@guarded
def pack(name: str, form: str, root: str | None, set_: tuple[str, ...]) -> None:
    """Put the pictures of each split into one file below DIR/packed; runs then read it instead of the files.

    Results do not change by a single bit: pictures are stored resized only where training and evaluation both resize
    before they crop, and of their full size where training cuts out of the picture as it is. Fields of the data set
    that decide this (size, augmentation, resize_first) are given with --set as in the suite. Packs that are there are kept.

    \b
    bench data pack clothing1m --root ~/data
    bench data pack webvision --set resize_first=true --root ~/data
    """
    from bench.data._packing import gib, jobs

    for job in jobs(name, root, parse_set(set_), form):
        place = job.place
        if job.there:
            click.echo(f"{place.split}: is there already, {place.path}")
            continue
        if job.fault:
            click.echo(f"replacing a pack that cannot be used: {job.fault}", err=True)
        with click.progressbar(length=len(place.images), label=f"packing {place.split}", file=sys.stderr) as bar:
            made = job.write(bar.update)
        click.echo(f"{place.split}: {len(made):,} pictures ({place.content}), {gib(made.size)}, {place.path}")


@click.group()
def noise() -> None:
    """Draw, measure and export label noise, as a suite would see it."""


def _drawn(dataset: str, wanted: str, seed: int, root: str | None, fields: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """(data set, artefact, its identity) of names as a suite writes them; `wanted` may be YAML for the long form."""
    import yaml

    import bench.data
    from bench.noise import plan_noise
    from bench.noise.tools import make as make_noise

    cls = bench.data.dataset_class(dataset)
    place = None if cls.embedded else bench.data.data_root(root)
    identity = {"name": cls.slug, "revision": cls.revision, **cls.identity(cls.planned(fields, place))}
    loaded = bench.data.load(identity, place)
    noise: Any = yaml.safe_load(wanted) if wanted.lstrip().startswith("{") else wanted
    folders = [Path.cwd(), bench.data.data_root(root)]
    noisy = make_noise(loaded, identity, noise, seed=seed, folders=folders, root=place)
    return loaded, noisy, plan_noise(noise, folders).identity


@noise.command()
@click.argument("dataset")
@click.argument("noise_", metavar="NOISE")
@SEED
@ROOT
@SET
@click.option("--figure", type=click.Path(dir_okay=False), metavar="FILE.png", help="Draw the transition matrix.")
@JSON
@guarded
def describe(
    dataset: str, noise_: str, seed: int, root: str | None, set_: tuple[str, ...], figure: str | None, as_json: bool
) -> None:
    """Measured rate, rates per class, transition matrix and sha256 of a noise, against its nominal rate.

    NOISE is what a suite would say, short or long; a file of labels is `file@PATH`.

    \b
    bench noise describe digits symmetric@0.5 --seed 1
    bench noise describe cifar10 file@0.5_sym.json --root ~/data --figure matrix.png
    bench noise describe cifar10 '{kind: symmetric, rate: 0.5, own_class: false}'
    """
    from bench.noise.tools import describe as facts_of
    from bench.noise.tools import describe_text, matrix_png
    from bench.records import write_atomic

    loaded, noisy, _ = _drawn(dataset, noise_, seed, root, parse_set(set_))
    facts = facts_of(noisy, loaded.class_names)
    if figure is not None:
        write_atomic(Path(figure), matrix_png(noisy.matrix, loaded.class_names, f"{dataset}, {noise_}, seed {seed}"))
    click.echo(json.dumps(facts) if as_json else describe_text(facts))


def _written(
    form: str, dataset: str, noise_: str, seed: int, root: str | None, set_: tuple[str, ...], output: str | None
) -> None:
    from bench.noise.tools import export as serialise
    from bench.noise.tools import file_name
    from bench.records import write_atomic

    _, noisy, identity = _drawn(dataset, noise_, seed, root, parse_set(set_))
    path = Path(output or file_name(form, identity, dataset, seed))
    write_atomic(path, serialise(noisy, form))
    click.echo(f"wrote {path}: {len(noisy.labels):,} labels, {100 * noisy.rate:.3f} % wrong, sha256 {noisy.sha256}")


@noise.command()
@click.argument("dataset")
@click.argument("noise_", metavar="NOISE")
@SEED
@ROOT
@SET
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="[default: DATASET-KIND-RATE-seedSEED.npz]")
@guarded
def make(dataset: str, noise_: str, seed: int, root: str | None, set_: tuple[str, ...], output: str | None) -> None:
    """Draw a noise and keep it as .npz (labels, true labels, sha256); `file@FILE` in a suite uses it.

    \b
    bench noise make digits symmetric@0.5 --seed 3
    """
    if output is not None and Path(output).suffix.lower() != ".npz":
        from bench.fields import FieldError

        raise FieldError("--output", f"{output} would hold .npz, and `file@` goes by the suffix", "give it the suffix .npz")
    _written("npz", dataset, noise_, seed, root, set_, output)


@noise.command()
@click.argument("dataset")
@click.argument("noise_", metavar="NOISE")
@SEED
@ROOT
@SET
@click.option("--format", "form", type=click.Choice(["dividemix", "scanmix", "npy", "npz", "csv"]), required=True,
              help="The program or the kind of file.")  # fmt: skip
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE", help="[default: the name the program expects]")
@guarded
def export(dataset: str, noise_: str, seed: int, root: str | None, set_: tuple[str, ...], form: str, output: str | None) -> None:
    """Write given labels as another program reads them: DivideMix's and ScanMix's JSON, .npy, .npz or CSV.

    \b
    bench noise export cifar10 symmetric@0.5 --format dividemix --root ~/data
    """
    _written(form, dataset, noise_, seed, root, set_, output)
