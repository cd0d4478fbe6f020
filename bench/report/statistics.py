"""Statistics of a suite's records: paired tests, average ranks, and what may be said about differences between methods.

Two questions, kept apart. Within one (data set, noise) the blocks are seeds: every method sees the same labels under a seed, so
differences are paired by the draw of the noise, and the answer is about this data set alone. Over all of them the blocks are, by
default, (data set, noise) with the mean over seeds taken first, as Demšar (JMLR 7, 2006, section 3.2) asks: seeds of one data set
are no independent data sets. Numbers come from scipy, scikit-posthocs and statsmodels; nothing is filled in where a cell is
missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from bench.report.aggregate import PHRASES, Outcome, aggregate_cell, method_infos, outcome_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05
MARGIN = 0.1
DIGITS = 12  # differences that agree to so many digits are ties; binary fractions would tell 0.3 - 0.2 from 0.2 - 0.1
BLOCKS = {
    "settings": "data set and noise, mean over seeds first",
    "datasets": "data set, mean over noises and seeds first",
    "seeds": "data set, noise and seed",
}


@dataclass(frozen=True)
class Pair:
    """`first` against `second` over the blocks: mean difference in points, blocks won, tied and lost by `first`, and p values
    as computed and after Holm's correction over all pairs of the section; None where a test was refused."""

    first: str
    second: str
    difference: float
    wins: int
    ties: int
    losses: int
    wilcoxon: float | None = None
    wilcoxon_holm: float | None = None
    t: float | None = None
    t_holm: float | None = None


@dataclass
class Section:
    """One family of comparisons. `values` [blocks, methods] are fractions; `refused` are sentences for what was not computed."""

    name: str
    unit: str
    methods: list[str]
    blocks: list[str] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)
    missing: list[Mapping[str, Any]] = field(default_factory=list)
    ranks: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    friedman: dict[str, float] | None = None
    nemenyi: dict[str, Any] | None = None
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Statistics:
    suite: str
    metric: str
    protocol: str
    blocks: str
    baseline: str | None
    alpha: float
    margin: float
    labels: dict[str, str]
    sections: list[Section]

    @property
    def overall(self) -> Section:
        return self.sections[-1]


def statistics(
    plan: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]], *, metric: str = "test_acc", protocol: str = "last",
    blocks: str = "settings", baseline: str | None = None, alpha: float = ALPHA, margin: float = MARGIN,
) -> Statistics:  # fmt: skip
    """Sections for each (data set, noise) of the plan, and over all of them, which is the last.

    Args:
        plan: {'suite': name, 'entries': [...]}; the entries say what has to be there.
        records: record by cell id.
        blocks: a key of `BLOCKS`, for the section over all.
        baseline: compare every method with this one (its row label) in place of all pairs.
        margin: percentage points within which a block counts as a tie, in wins, ties and losses alone.

    Raises ValueError for an unknown name, or fewer than two methods.
    """
    entries = plan["entries"]
    infos = method_infos(entries)
    if len(infos) < 2:
        raise ValueError(f"a comparison needs at least two methods, {plan['suite']!r} has {', '.join(infos) or 'none'}")
    if baseline is not None and baseline not in infos:
        raise ValueError(f"unknown baseline {baseline!r}; valid: {', '.join(infos)}")
    if blocks not in BLOCKS:
        raise ValueError(f"unknown blocks {blocks!r}; valid: {', '.join(BLOCKS)}")
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for entry in entries:
        outcomes.setdefault((entry["dataset"], entry["noise"]), []).append(outcome_of(entry, records.get(entry["id"])))
    sections = [_setting(at, found, list(infos), metric, protocol) for at, found in outcomes.items()]
    sections.append(_overall(list(outcomes), sections, list(infos), blocks))
    for section in sections:
        _analyse(section, baseline, alpha, margin)
    labels = {name: info.label for name, info in infos.items()}
    return Statistics(plan["suite"], metric, protocol, blocks, baseline, alpha, margin, labels, sections)


def _setting(at: tuple[str, str], outcomes: Sequence[Outcome], methods: list[str], metric: str, protocol: str) -> Section:
    """One (data set, noise): a block for each seed; cells without a value are `missing`, and then nothing is computed. Methods
    that the plan does not run here at all take no part."""
    present = {outcome.entry["method"] for outcome in outcomes}
    methods = [method for method in methods if method in present]
    section = Section(f"{at[0]}, {at[1]}", "seed", methods)
    seeds = sorted({outcome.entry["seed"] for outcome in outcomes})
    found = {(outcome.entry["method"], outcome.entry["seed"]): outcome for outcome in outcomes}
    for seed in seeds:
        row: list[float] = []
        for method in methods:
            outcome = found.get((method, seed))
            if outcome is None:
                section.missing.append({**_at(at, method, seed), "status": "unplanned", "reason": None, "entry": None})
                continue
            item = aggregate_cell([outcome], metric, protocol)
            if item.mean is None:
                why = {"status": item.status, "reason": outcome.reason, "entry": outcome.entry}
                section.missing.append({**_at(at, method, seed), **why})
            else:
                row.append(item.mean)
        section.blocks.append(f"seed {seed}")
        section.values.append(row)
    unpaired = [seed for seed in seeds if len(_draws(found, methods, seed)) > 1]
    if unpaired:
        text = ", ".join(map(str, unpaired))
        section.refused.append(f"methods saw different labels for seed {text}, so nothing is paired: run these cells again")
    return section


def _draws(found: Mapping[tuple[str, int], Outcome], methods: Sequence[str], seed: int) -> set[str]:
    draws = set()
    for method in methods:
        outcome = found.get((method, seed))
        noise = (outcome.record or {}).get("noise") if outcome is not None and outcome.done else None
        if noise and noise.get("sha256"):
            draws.add(noise["sha256"])
    return draws


def _at(at: tuple[str, str], method: str, seed: int) -> dict[str, Any]:
    return {"dataset": at[0], "noise": at[1], "method": method, "seed": seed}


def _overall(settings: Sequence[tuple[str, str]], sections: Sequence[Section], methods: list[str], blocks: str) -> Section:
    kept = [method for method in methods if all(method in part.methods for part in sections)]
    section = Section("all data sets and noises", BLOCKS[blocks], kept)
    if len(kept) < len(methods):
        others = ", ".join(method for method in methods if method not in kept)
        section.notes.append(f"left out, since the suite does not run them everywhere: {others}")
    section.missing = [cell for part in sections for cell in part.missing if cell["method"] in kept]
    section.refused = [f"{part.name}: {text}" for part in sections for text in part.refused]
    if section.missing or section.refused:
        return section
    if blocks == "seeds":
        section.blocks = [f"{part.name}, {block}" for part in sections for block in part.blocks]
        section.values = [row for part in sections for row in _columns(part, kept)]
        section.notes.append("seeds within a data set and noise are not independent data sets: these p values are too small for "
                             "a claim about data sets in general; average over seeds first (the default) for that")  # fmt: skip
        return section
    means = [_column_means(_columns(part, kept)) for part in sections]
    names = [part.name for part in sections]
    datasets = list(dict.fromkeys(dataset for dataset, _ in settings))
    if blocks == "datasets":
        grouped = [[m for (name, _), m in zip(settings, means, strict=True) if name == dataset] for dataset in datasets]
        means, names = [_column_means(group) for group in grouped], datasets
    elif len(datasets) < len(settings):
        section.notes.append(f"{len(settings)} blocks come from {len(datasets)} data set{'s' if len(datasets) > 1 else ''}: "
                             "noises of one data set are not independent data sets either")  # fmt: skip
    section.blocks, section.values = names, means
    return section


def _columns(section: Section, methods: Sequence[str]) -> list[list[float]]:
    chosen = [section.methods.index(method) for method in methods]
    return [[row[i] for i in chosen] for row in section.values]


def _column_means(values: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(column) / len(column) for column in zip(*values, strict=True)]


# -- numbers -----------------------------------------------------------------------------------------------------------
def _analyse(section: Section, baseline: str | None, alpha: float, margin: float) -> None:
    import numpy as np

    if section.missing or section.refused:
        return
    if len(section.methods) < 2 or (baseline is not None and baseline not in section.methods):
        section.refused.append(f"there is nothing to compare{f' with {baseline}' if baseline else ''}")
        return
    values = np.array(section.values)
    section.means = dict(zip(section.methods, values.mean(axis=0).tolist(), strict=True))
    section.ranks = dict(zip(section.methods, average_ranks(values).tolist(), strict=True))
    section.pairs = _pairs(section, values, baseline, alpha, margin)
    _friedman(section, values, alpha)


def average_ranks(values: NDArray[Any]) -> NDArray[Any]:
    """Mean rank of each column [k] over the rows of `values` [blocks, k]; the largest value has rank 1, ties share ranks."""
    import numpy as np
    from scipy.stats import rankdata

    return rankdata(-np.round(values, DIGITS), axis=1).mean(axis=0)


def _pairs(section: Section, values: NDArray[Any], baseline: str | None, alpha: float, margin: float) -> list[Pair]:
    import numpy as np

    methods, n = section.methods, len(values)
    order = {name: i for i, name in enumerate(methods)}
    chosen = [(m, baseline) for m in methods if m != baseline] if baseline else list(combinations(methods, 2))
    differences = [np.round(values[:, order[a]] - values[:, order[b]], DIGITS) for a, b in chosen]
    smallest = 2.0 ** (1 - n)
    wilcoxon: list[float | None] = [None] * len(chosen)
    if smallest > alpha:
        needed = math.ceil(1 - math.log2(alpha))
        section.refused.append(f"Wilcoxon: with {n} block{'s' if n > 1 else ''} ({section.unit}) the smallest p is {smallest:g}, "
                               f"nothing can be significant at {alpha:g}; {needed} are needed")  # fmt: skip
    else:
        wilcoxon = [signed_rank(d) for d in differences]
        if smallest * len(chosen) > alpha:
            least = min(1.0, smallest * len(chosen))
            section.notes.append(f"{len(chosen)} comparisons over {n} blocks: the smallest corrected p of Wilcoxon's test is "
                                 f"{least:.2g}, nothing can be significant; name a baseline, or run more")  # fmt: skip
    t = [paired_t(d) for d in differences]
    if n < 2:
        section.refused.append("paired t: a single block has no spread")
    elif None in t:
        section.notes.append("paired t: left out where all differences are equal")
    found = zip(chosen, differences, wilcoxon, holm(wilcoxon), t, holm(t), strict=True)
    return [_pair(pair, d, margin, *p) for pair, d, *p in found]


def _pair(pair: tuple[str, str], d: NDArray[Any], margin: float, *p: float | None) -> Pair:
    points = (100 * d).round(DIGITS - 2)
    wins, losses = int((points > margin).sum()), int((points < -margin).sum())
    return Pair(*pair, float(points.mean()), wins, len(d) - wins - losses, losses, *p)


def signed_rank(differences: NDArray[Any]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test [blocks]; ranks of zero differences go half to each side (Demšar, 3.1.3)."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences, zero_method="zsplit").pvalue) if differences.any() else 1.0


def paired_t(differences: NDArray[Any]) -> float | None:
    """Two-sided p of the paired t test [blocks]; None without spread, where it is not defined."""
    from scipy.stats import ttest_1samp

    return None if len(differences) < 2 or (differences == differences[0]).all() else float(ttest_1samp(differences, 0).pvalue)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction over the values that are there."""
    from statsmodels.stats.multitest import multipletests

    present = [value for value in p if value is not None]
    corrected = iter(multipletests(present, method="holm")[1].tolist() if present else ())
    return [None if value is None else next(corrected) for value in p]


def critical_difference(k: int, n: int, alpha: float = ALPHA) -> float:
    """Difference of average ranks of `k` methods over `n` blocks that Nemenyi's test calls significant (Demšar, 3.2.2)."""
    from scipy.stats import studentized_range

    return float(studentized_range.isf(alpha, k, math.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n)))


def _friedman(section: Section, values: NDArray[Any], alpha: float) -> None:
    """Friedman's test with Iman and Davenport's F, and Nemenyi's, where they can say anything."""
    import numpy as np
    from scipy.stats import chi2, f, friedmanchisquare

    n, k = values.shape
    if k < 3:
        section.refused.append("Friedman: two methods need no test of ranks, see the paired tests")
        return
    if n < 2 or chi2.sf(n * (k - 1), k - 1) > alpha:
        section.refused.append(f"Friedman: with {n} block{'s' if n > 1 else ''} and {k} methods nothing can be significant")
        return
    rounded = np.round(values, DIGITS)
    if (rounded == rounded[:, :1]).all():
        section.refused.append("Friedman: all methods are equal in every block")
        return
    statistic, p = friedmanchisquare(*rounded.T)
    section.friedman = {"chi2": float(statistic), "p": float(p)}
    rest = n * (k - 1) - statistic
    if rest > 1e-9:
        improved = (n - 1) * statistic / rest
        section.friedman |= {"F": float(improved), "p_F": float(f.sf(improved, k - 1, (k - 1) * (n - 1)))}
    if n <= 10 or k <= 5:
        section.notes.append(f"Friedman: chi squared and F are approximations, rough for {n} blocks and {k} methods "
                             "(Demšar: more than 10 and 5)")  # fmt: skip
    cd = critical_difference(k, n, alpha)
    if cd >= k - 1:
        section.refused.append(f"Nemenyi: the critical difference of {cd:.2f} ranks exceeds the largest possible one, {k - 1}")
        return
    from scikit_posthocs import posthoc_nemenyi_friedman

    table = posthoc_nemenyi_friedman(rounded).to_numpy()
    section.nemenyi = {"cd": cd, "p": table.tolist(), "groups": groups(section.ranks, cd)}


def groups(ranks: Mapping[str, float], cd: float) -> list[list[str]]:
    """Largest sets of at least two methods, neighbours by rank, whose average ranks lie within `cd`."""
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    found: list[list[str]] = []
    for i, first in enumerate(order):
        inside = [name for name in order[i:] if ranks[name] - ranks[first] <= cd]
        if len(inside) > 1 and not (found and set(inside) <= set(found[-1])):
            found.append(inside)
    return found


def told(cell: Mapping[str, Any]) -> str:
    """'digits, none, erm, seed 0: failed: CUDA out of memory'."""
    what = "not planned" if cell["status"] == "unplanned" else PHRASES.get(cell["status"], cell["status"])
    reason = f": {cell['reason']}" if cell["reason"] else ""
    return f"{cell['dataset']}, {cell['noise']}, {cell['method']}, seed {cell['seed']}: {what}{reason}"
