"""The words around a table, generated from the specification and the records so that they cannot disagree with the
numbers: caption, method footnotes, notes on noise and data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.needs import NEEDS
from bench.report.aggregate import Block, MethodInfo, Outcome, TableData
from bench.report.spec import METRICS, PROTOCOLS, TableSpec

NON_CANONICAL_MARK = "†"


def caption(block: Block, spec: TableSpec) -> list[list[str]]:
    """What the numbers are, sentences in three parts: statistic, metrics, protocols. Blocks share most of them."""
    shown = {metric for names in block.metrics.values() for metric in names}
    metrics = [f"{metric.label}: {metric.meaning}." for name, metric in METRICS.items() if name in shown]
    k = last_k(block)
    val = validation(block)
    protocols = [
        f"{protocol_label(p, block)}: {PROTOCOLS[p].meaning.format(k=k, val=val)}." for p in spec.shown_protocols
    ]
    return [[statistic(block, spec)], metrics, protocols]


def conditions(block: Block) -> str:
    """What the numbers of a block were measured on and with: test split, groups, backbone, epochs; '' if none ran."""
    n_test = _common(block, lambda record: _at(record, "data", "n_test"))
    groups = _common(block, lambda record: tuple(_at(record, "data", "groups") or ()))
    models = sorted({str(name) for record in block.records if (name := _at(record, "cell", "model", "name"))})
    epochs = sorted({e for record in block.records if isinstance(e := _at(record, "cell", "training", "epochs"), int)})
    parts = [f"test split of {n_test} images, labels not corrupted"] if n_test else []
    if groups:
        parts.append(f"{len(groups)} groups ({', '.join(map(str, groups))})")
    if models:
        parts.append(f"backbone {', '.join(models)}")
    if epochs:
        differ = f"{epochs[0]} to {epochs[-1]} epochs (they differ between cells)"
        parts.append(f"{epochs[0]} epochs" if len(epochs) == 1 else differ)
    share = _common(block, lambda record: _at(record, "cell", "protocol", "train_fraction"))
    if share:
        parts.append(f"{100 * share:g} % of the training images")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def emphasis(spec: TableSpec, best: str, second: str) -> str | None:
    """The sentence that explains the marks, in the words of a format ('Bold', 'Underlined'); None without marks."""
    if not (spec.bold_best or spec.underline_second):
        return None
    within = f"within {spec.tie_margin:g} points of the best" if spec.tie_margin else "ties at the printed precision"
    parts = []
    if spec.bold_best:
        parts.append(f"{best}: best method ({within})")
    if spec.underline_second:
        parts.append(f"{second}: second best")
    return f"{'; '.join(parts)}, for each protocol apart; values with seeds absent do not compete."


def protocol_label(protocol: str, block: Block) -> str:
    return PROTOCOLS[protocol].label.format(k=last_k(block))


def need_note(need: str, count: str = "") -> str:
    """`count`: how many samples the need is about, where it has a number."""
    return f"{NEEDS.get(need) or f'uses {need}'}{f': {count}' if count else ''} (privileged information)"


def networks_note(networks: int) -> str:
    return f"trains {networks} networks"


def method_notes(data: TableData, methods: Iterable[str]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Letters for privileged needs and for more than one network: marks of each method, and (mark, text) pairs."""
    marks: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    for method in methods:
        for text in _method_texts(data.methods[method], _trusted_counts(data, method)):
            mark = notes.setdefault(text, letter(len(notes)))
            marks.setdefault(method, []).append(mark)
    return marks, [(mark, text) for text, mark in notes.items()]


def data_note(block: Block) -> str | None:
    """A sentence for the whole block when all its numbers come from non-canonical data, else None."""
    if block.records and all(non_canonical(record) for record in block.records):
        return "non-canonical data: these numbers are not comparable with published ones"
    return None


def non_canonical(record: Mapping[str, Any]) -> bool:
    return (record.get("data") or {}).get("canonical") is False


def in_part(record: Mapping[str, Any]) -> bool:
    """Whether a record is of a part of the training images."""
    return _at(record, "cell", "protocol", "train_fraction") not in (None, 1)


def noise_notes(block: Block) -> list[tuple[str, str]]:
    """(noise label, text) for each noise of the block: its definition, nominal rate and measured rates over seeds.

    When the block holds several data sets, the label names the data set too. The label is empty for warnings.
    """
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for group in block.outcomes.values():
        for outcome in group:
            groups.setdefault((outcome.entry["dataset"], outcome.entry["noise"]), []).append(outcome)
    several = len({dataset for dataset, _ in groups}) > 1
    notes = []
    warnings = []
    for (dataset, noise), outcomes in groups.items():
        label = f"{dataset}, {noise}" if several else noise
        notes.append((label, _noise_text(outcomes)))
        unpaired = _unpaired_seeds(outcomes)
        if unpaired:
            seeds = ", ".join(str(seed) for seed in unpaired)
            text = f"Warning: methods saw different labels in {label}, seed {seeds}: not a paired comparison."
            warnings.append(("", text))
    return notes + warnings


def statistic(block: Block, spec: TableSpec) -> str:
    n = block.common_n
    seeds = "over the seeds whose number n stands in each cell" if n is None else f"over {n} seed{'s' if n > 1 else ''}"
    if n == 1:
        return "Percent; a single seed, hence no spread."
    if spec.spread == "none":
        return f"Percent; mean {seeds}."
    return f"Percent; mean ± sample standard deviation (ddof = 1) {seeds}."


def last_k(block: Block) -> str:
    """How many epochs were averaged: all, where there were fewer than k."""
    k = _common(block, _averaged)
    return "k" if k is None else str(k)


def _averaged(record: Mapping[str, Any]) -> int | None:
    k, epochs = _at(record, "cell", "protocol", "last_k"), _at(record, "cell", "training", "epochs")
    return k if k is None or epochs is None else min(k, epochs)


def validation(block: Block) -> str:
    """Whose labels chose the epoch: `data.validation` of the records, by data set."""
    kinds: dict[str, list[str]] = {}
    for outcome in (outcome for group in block.outcomes.values() for outcome in group):
        kind, name = _at(outcome.record, "data", "validation"), outcome.entry["dataset"]
        if kind and name not in kinds.setdefault(kind, []):
            kinds[kind].append(name)
    return "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items()) or "kind not recorded"


def _noise_text(outcomes: Sequence[Outcome]) -> str:
    noises = [outcome.record.get("noise") or {} for outcome in outcomes if outcome.done and outcome.record is not None]
    if not noises:
        return "no record yet."
    definitions = dict.fromkeys(str(noise["definition"]).rstrip(". ") for noise in noises if noise.get("definition"))
    nominal = sorted({noise["nominal"] for noise in noises if noise.get("nominal") is not None})
    measured = sorted({noise["rate"] for noise in noises if noise.get("rate") is not None})
    low, high = (f"{measured[0]:.3f}", f"{measured[-1]:.3f}") if measured else ("unknown", "unknown")
    stated = ", ".join(f"{rate:g}" for rate in nominal) or "not stated"
    rates = f"nominal rate {stated}, measured {low if low == high else f'{low} to {high} over seeds'}."
    return "; ".join([*definitions, rates])


def _unpaired_seeds(outcomes: Sequence[Outcome]) -> list[int]:
    hashes: dict[int, set[str]] = {}
    for outcome in outcomes:
        digest = _at(outcome.record, "noise", "sha256") if outcome.done else None
        if digest:
            hashes.setdefault(outcome.entry["seed"], set()).add(digest)
    return [seed for seed, found in hashes.items() if len(found) > 1]


def _method_texts(info: MethodInfo, trusted: str) -> list[str]:
    notes = [need_note(need, trusted if need == "trusted" else "") for need in info.needs]
    return notes + ([networks_note(info.networks)] if info.networks > 1 else [])


def _trusted_counts(data: TableData, method: str) -> str:
    """How many samples a method was given as trusted, '1000' or '950 to 1000'; '' where no record says so."""
    outcomes = (o for block in data.blocks for group in block.outcomes.values() for o in group if o.entry["method"] == method)
    counts = sorted({n for o in outcomes if isinstance(n := _at(o.record, "data", "trusted"), int)})
    return "" if not counts else f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _common(block: Block, read: Any) -> Any:
    """The value that `read` gives for every record that has one, or None when they differ or none has."""
    values = {value for record in block.records if (value := read(record))}
    return values.pop() if len(values) == 1 else None


def _at(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def letter(index: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
