"""What `bench noise make | describe | export` do, as functions: draw, measure, draw a picture of, and write label vectors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.fields import FieldError, nearest
from bench.noise import (
    Labels,
    NoiseInput,
    NoisyLabels,
    draw,
    noise_class,
    plan_noise,
    sha256_of,
    transition_counts,
    transition_matrix,
)
from bench.noise._readers import read_labels, split_location

#: name of a format -> suffix of its files
FORMATS = {"dividemix": ".json", "scanmix": ".json", "npy": ".npy", "npz": ".npz", "csv": ".csv"}
#: classes beyond which a matrix is shown by its largest flows, and without numbers in its picture
_FEW = 20
_FLOWS = 20


def make(
    data: Any,
    dataset: Mapping[str, Any],
    noise: str | Mapping[str, Any],
    *,
    seed: int = 0,
    folders: Sequence[Path] = (),
    root: Path | None = None,
    cache: Path | None = None,
    device: str = "cpu",
) -> NoisyLabels:
    """Draw a noise, as a suite would write it, for a loaded data set (`bench.data.Loaded`) and its identity.

    The labels are those of a cell with this data set, noise and seed. Raises `FieldError` where the two do not fit.
    """
    from bench.data import dataset_class

    planned = plan_noise(noise, folders)
    misfit = noise_class(planned.identity["kind"]).misfit(dataset_class(dataset["name"]), planned.identity)
    if misfit:
        raise FieldError("noise", f"{planned.label} does not fit: {misfit}")
    given = NoiseInput.of(data, dataset["name"], root=root, files=planned.files, cache=cache, device=device)
    return draw(planned.identity, given, dict(dataset), seed)


def measure(labels: Labels, true: Labels, num_classes: int, location: str = "labels") -> NoisyLabels:
    """Labels that exist already, against the true ones. Raises `FieldError` for another length or labels out of range."""
    if labels.shape != true.shape:
        raise FieldError("labels", f"{location}: {len(labels)} labels, and there are {len(true)} true ones")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise FieldError("labels", f"{location}: labels lie in [{labels.min()}, {labels.max()}], not in [0, {num_classes})")
    return NoisyLabels(
        labels=labels,
        rate=float((labels != true).mean()),
        matrix=transition_matrix(true, labels, num_classes),
        nominal=None,
        definition=f"the label vector with sha256 {sha256_of(labels)}",
        true=true,
    )


def measure_file(location: str, true: Labels, num_classes: int) -> NoisyLabels:
    """`measure` for `path` or `path#key`; a file that is shorter than `true` labels the first images."""
    path, key = split_location(location)
    labels = read_labels(path, key)
    return measure(labels, true[: len(labels)], num_classes, location)


def describe(noisy: NoisyLabels, class_names: Sequence[str]) -> dict[str, Any]:
    """Everything that can be said of an artefact, as JSON values: rates over all and per class, matrix, largest flows."""
    closed = noisy.true >= 0
    counts = transition_counts(noisy.true[closed], noisy.labels[closed], len(class_names))
    given = np.bincount(noisy.labels, minlength=len(class_names))
    totals, wrong = counts.sum(axis=1), counts.sum(axis=1) - counts.diagonal()
    classes = [
        {
            "class": name, "samples": int(n), "wrong": int(w), "rate": float(w / n) if n else None, "given": int(g),
        }
        for name, n, w, g in zip(class_names, totals, wrong, given, strict=True)
    ]  # fmt: skip
    rates = [float(w / n) for n, w in zip(totals, wrong, strict=True) if n]
    return {
        "definition": noisy.definition,
        "samples": len(noisy.labels),
        "wrong": int((noisy.labels != noisy.true).sum()),
        "rate": noisy.rate,
        "nominal": noisy.nominal,
        "expected": noisy.expected,
        "class_rate": {"min": min(rates), "median": float(np.median(rates)), "max": max(rates)} if rates else None,
        "sha256": noisy.sha256,
        "selected": noisy.keep is not None,
        "replaced": None if noisy.replaced is None else len(noisy.replaced.position),
        "classes": classes,
        "matrix": np.round(noisy.matrix, 6).tolist(),
        "flows": _flows(counts, class_names),
    }


def _flows(counts: Labels, names: Sequence[str]) -> list[dict[str, Any]]:
    """The largest confusions: share of the true class, in falling order."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    share = counts / totals
    np.fill_diagonal(share, 0.0)
    order = np.argsort(-share, axis=None, kind="stable")[:_FLOWS]
    pairs = [divmod(int(place), len(names)) for place in order]
    return [{"from": names[i], "to": names[j], "share": float(share[i, j])} for i, j in pairs if share[i, j] > 0]


def describe_text(facts: Mapping[str, Any]) -> str:
    """`describe` for a terminal: totals against the nominal, a line per class, the matrix or its largest flows."""
    from tabulate import tabulate

    def table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
        return tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True, stralign="right")

    expected = f", its convention gives {_percent(facts['expected'])} on average" if facts["expected"] is not None else ""
    head = [
        facts["definition"],
        f"{facts['wrong']:,} of {facts['samples']:,} labels are wrong: {_percent(facts['rate'])} "
        f"(nominal {_percent(facts['nominal'])}{expected})",
    ]
    if facts["class_rate"]:
        of = facts["class_rate"]
        head.append(f"per class: {_percent(of['min'])} to {_percent(of['max'])}, median {_percent(of['median'])}")
    if facts["selected"]:
        head.append(f"{facts['samples']:,} samples stay in the training set")
    if facts["replaced"]:
        head.append(f"{facts['replaced']:,} pictures are another data set's")
    head.append(f"sha256 {facts['sha256']}")
    rows = [
        (row["class"], f"{row['samples']:,}", f"{row['wrong']:,}", _percent(row["rate"]), f"{row['given']:,}")
        for row in facts["classes"]
    ]
    parts = ["\n".join(head), table(rows, ("class", "samples", "wrong", "rate", "given labels"))]
    names = [row["class"] for row in facts["classes"]]
    if len(names) <= _FEW:
        body = [(name, *(f"{100 * value:.1f}" for value in row)) for name, row in zip(names, facts["matrix"], strict=True)]
        parts.append("rows: true class, columns: given label, per cent\n" + table(body, ("", *names)))
    elif facts["flows"]:
        body = [(flow["from"], flow["to"], _percent(flow["share"])) for flow in facts["flows"]]
        parts.append("largest flows\n" + table(body, ("true class", "given label", "share")))
    return "\n\n".join(parts)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def matrix_png(matrix: NDArray[np.float64], class_names: Sequence[str], title: str = "") -> bytes:
    """The transition matrix [K, K] as a picture (PNG). The colour scale is the square root, so that small shares show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(class_names)
    few = classes <= _FEW
    side = 2.4 + 0.52 * classes if few else 8.0
    figure = Figure(figsize=(side + 0.8, side), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0), interpolation="nearest")
    step = 1 if few else max(1, classes // 20)
    ticks = range(0, classes, step)
    axes.set_xticks(ticks, [class_names[t] for t in ticks], rotation=90 if not few or classes > 4 else 0, fontsize=8)
    axes.set_yticks(ticks, [class_names[t] for t in ticks], fontsize=8)
    axes.set_xlabel("given label", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    if few:
        for (i, j), value in np.ndenumerate(matrix):
            if value >= 0.0005:
                colour = "white" if value > 0.3 else "black"
                axes.text(j, i, f"{100 * value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    if title:
        axes.set_title(title, fontsize=9, wrap=True)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.ax.set_yticklabels(["0", "5", "20", "50", "100"], fontsize=8)
    bar.set_label("per cent of the true class", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def export(noisy: NoisyLabels, form: str) -> bytes:
    """The given labels as a file that other programs read, and that loads again through `file`.

    dividemix: a flat JSON list. scanmix: a JSON mapping of `noise_labels`, `open_noise` (empty) and `closed_noise`, here the
    wrongly labelled samples. npy: int64. npz: `labels`, `true_labels`, `sha256`. csv: index, noisy_label, true_label. Raises
    `FieldError` for an unknown format, and for noise that a label vector does not describe: samples left out, pictures
    replaced.
    """
    if form not in FORMATS:
        raise FieldError("format", f"unknown format {form!r}", nearest(form, FORMATS))
    if noisy.keep is not None or noisy.replaced is not None:
        what = "leaves samples out" if noisy.keep is not None else "replaces pictures"
        raise FieldError("format", f"this noise {what}, which a label vector cannot say", "export its label noise alone")
    labels, true = noisy.labels, noisy.true
    if form == "dividemix":
        return json.dumps(labels.tolist()).encode()
    if form == "scanmix":
        wrong = np.flatnonzero(labels != true).tolist()
        return json.dumps({"noise_labels": labels.tolist(), "open_noise": [], "closed_noise": wrong}).encode()
    buffer = io.BytesIO()
    if form == "npy":
        np.save(buffer, labels)
    elif form == "npz":
        np.savez_compressed(buffer, labels=labels, true_labels=true, sha256=noisy.sha256)
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("index", "noisy_label", "true_label"))
        writer.writerows(zip(range(len(labels)), labels.tolist(), true.tolist(), strict=True))
        return text.getvalue().encode()
    return buffer.getvalue()


def file_name(form: str, identity: Mapping[str, Any], dataset: str, seed: int) -> str:
    """How the programs call such a file: `0.5_sym.json` (DivideMix), `0.50.json` (ScanMix); ours names everything."""
    asymmetric = identity["kind"] == "asymmetric" or identity.get("mode") == "asym"
    if form == "dividemix" and "rate" in identity:
        return f"{identity['rate']:.1f}_{'asym' if asymmetric else 'sym'}.json"
    if form == "scanmix" and "rate" in identity:
        return f"{identity['rate']:.2f}{'_asym' if asymmetric else ''}.json"
    rate = f"-{identity['rate']:g}" if "rate" in identity else ""
    return f"{dataset}-{identity['kind']}{rate}-seed{seed}{FORMATS[form]}"
