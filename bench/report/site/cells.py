"""What the page of one record shows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bench.report.layout import percent
from bench.report.site.charts import Heat, Points, heat, largest, line_chart, number, picture, points
from bench.report.spec import METRICS, PROTOCOLS

CURVES = {
    "test_acc": "test accuracy",
    "worst_group_acc": "worst group",
    "val_acc": "validation accuracy (given labels of that split)",
    "noise_auc": "noise AUC",
    "test2_acc": "accuracy, second test set",
}
_COST_UNIT = re.compile("_(seconds|bytes)$")
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    svg: Markup
    legend: list[str]
    marks: list[str]


@dataclass(frozen=True)
class Picture:
    """`verdict`: whether the given label is right or wrong, or that this is unknown."""

    source: str
    given: str
    true: str
    index: str
    score: str
    verdict: str


@dataclass(frozen=True)
class CellView:
    status: str
    reason: str
    traceback: str
    protocols: list[str]
    metrics: list[tuple[str, list[str]]]
    meanings: list[str]
    groups: list[tuple[str, list[str]]]
    chart: Chart
    loss: Chart
    config: list[tuple[str, Pairs]]
    definition: str
    noise: Pairs
    matrix: Heat | None
    flips: list[tuple[str, str, float]]
    confusion: Heat | None
    data: Pairs
    cost: Pairs
    provenance: Pairs
    warnings: list[str]
    gallery: list[tuple[str, list[Picture]]]
    watched: list[str]


def cell_view(record: Mapping[str, Any]) -> CellView:
    metrics, curve, detail, noise = (_mapping(record.get(key)) for key in ("metrics", "curve", "detail", "noise"))
    k = _mapping(record["cell"].get("protocol")).get("last_k", "k")
    watched = _mapping(record.get("watched"))
    matrix = heat(noise.get("matrix"), noise.get("classes"))
    return CellView(
        status=record["status"],
        reason=record.get("reason") or "",
        traceback=str(record.get("traceback") or ""),
        protocols=[protocol.label.format(k=k) for protocol in PROTOCOLS.values()],
        metrics=_metrics(metrics),
        meanings=[f"{metric.label}: {metric.meaning}." for name, metric in METRICS.items() if _measured(metrics, name)],
        groups=_groups(metrics, detail),
        chart=_accuracy(curve, metrics),
        loss=_loss(curve),
        config=[(axis, _flat(value, axis)) for axis, value in record["cell"].items()],
        definition=str(noise.get("definition") or ""),
        noise=_flat({key: _rounded(noise[key]) for key in noise if key not in ("matrix", "classes", "definition")}, "noise"),
        matrix=matrix,
        flips=largest(noise.get("matrix"), noise.get("classes")) if matrix is not None and matrix.image else [],
        confusion=heat(detail.get("confusion_last"), noise.get("classes"), counts=True),
        data=_flat(_mapping(record.get("data")), "data"),
        cost=[_cost(key, value) for key, value in _mapping(record.get("cost")).items()],
        provenance=_flat(_mapping(record.get("provenance")), "provenance"),
        warnings=[str(warning) for warning in record.get("warnings") or []],
        gallery=_gallery(watched),
        watched=[str(name) for name, value in watched.items() if _mapping(value).get("kind") != "gallery"],
    )


def _metrics(metrics: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    rows = []
    for name, metric in METRICS.items():
        values = [number(metrics.get(f"{name}_{protocol}")) for protocol in PROTOCOLS]
        if _measured(metrics, name):
            rows.append((metric.label, [_percent(value) for value in values]))
    epochs = [number(metrics.get(f"epoch_{protocol}")) for protocol in PROTOCOLS]
    if any(epoch is not None for epoch in epochs):
        rows.append(("epoch, counted from 1", ["" if epoch is None else f"{epoch + 1:g}" for epoch in epochs]))
    return rows


def _measured(metrics: Mapping[str, Any], name: str) -> bool:
    return any(number(metrics.get(f"{name}_{protocol}")) is not None for protocol in PROTOCOLS)


def _groups(metrics: Mapping[str, Any], detail: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Accuracy of each group by protocol, and its noise AUC after the last epoch."""
    found = {protocol: _mapping(metrics.get(f"group_acc_{protocol}")) for protocol in PROTOCOLS}
    auc = _mapping(detail.get("group_noise_auc_last"))
    names = dict.fromkeys(name for values in found.values() for name in values)
    return [
        (name, [_percent(number(found[p].get(name))) for p in PROTOCOLS] + [_percent(number(auc.get(name)))]) for name in names
    ]


def _accuracy(curve: Mapping[str, Any], metrics: Mapping[str, Any]) -> Chart:
    lines = {label: points(curve, name) for name, label in CURVES.items()}
    epochs = {"best on test (oracle)": metrics.get("epoch_best_oracle"), "selected on validation": metrics.get("epoch_selected")}
    marks = {name: epoch + 1 for name, value in epochs.items() if (epoch := number(value)) is not None}
    return _chart(lines, "curves over epochs, per cent", "per cent", marks)


def _loss(curve: Mapping[str, Any]) -> Chart:
    return _chart({"training loss": points(curve, "train_loss", 1.0)}, "training loss over epochs", "training loss", {})


def _chart(lines: Mapping[str, Points], label: str, unit: str, marks: Mapping[str, float | None]) -> Chart:
    lines = {name: line for name, line in lines.items() if line}
    texts = [f"{name}: epoch {epoch:g}" for name, epoch in marks.items() if epoch is not None]
    return Chart(line_chart(lines, label, unit, marks), list(lines), texts if lines else [])


def _gallery(watched: Mapping[str, Any]) -> list[tuple[str, list[Picture]]]:
    """The pictures of every watched gallery, by (name and) epoch."""
    found = []
    for name, value in watched.items():
        if _mapping(value).get("kind") != "gallery":
            continue
        classes = value.get("classes") if isinstance(value.get("classes"), list) else []
        for epoch, samples in _mapping(value.get("at")).items():
            pictures = [_picture(_mapping(sample), classes) for sample in samples if isinstance(samples, list)]
            at = int(epoch) + 1 if str(epoch).isdecimal() else epoch
            found.append((f"{name}, epoch {at}", [shown for shown in pictures if shown.source]))
    return found


def _picture(sample: Mapping[str, Any], classes: list[Any]) -> Picture:
    def name(label: Any) -> str:
        known = isinstance(label, int) and 0 <= label < len(classes)
        return str(classes[label]) if known else "unknown" if label is None else str(label)

    score, given, true = number(sample.get("score")), sample.get("given"), sample.get("true")
    verdict = "unknown" if true is None else "right" if given == true else "wrong"
    shown = "" if score is None else f"{score:.3g}"
    return Picture(picture(sample.get("png")), name(given), name(true), str(sample.get("index")), shown, verdict)


def _cost(key: str, value: Any) -> tuple[str, str]:
    """Name and amount with its unit: ('train', '6.87 s') of train_seconds."""
    name, amount = _COST_UNIT.sub("", key).replace("_", " "), number(value)
    if amount is None:
        return name, _text(value)
    if key.endswith("_seconds"):
        return name, f"{amount:,.1f} s" if amount >= 10 else f"{amount:.3g} s"
    if key.endswith("_bytes"):
        return name, f"{amount / 1e6:,.1f} MB"
    return name, f"{amount:,.0f}" if amount == int(amount) or amount > 100 else f"{amount:g}"


def _flat(value: Any, name: str, prefix: str = "") -> Pairs:
    """(dotted key, text) of every leaf; a bare value goes under its own name."""
    if not isinstance(value, Mapping):
        return [(prefix or name, _text(value))]
    if not value and prefix:
        return [(prefix, "none")]
    return [pair for key, item in value.items() for pair in _flat(item, name, f"{prefix}.{key}" if prefix else str(key))]


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _percent(value: float | None) -> str:
    return "" if value is None else percent(value, 2)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
