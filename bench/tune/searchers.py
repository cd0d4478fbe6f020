"""Which settings are tried next, as a function of space, seed and history alone; keeps no state between calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.cell import canonical_json, stream_seed
from bench.tune.space import Setting, Space, random_settings, size

WORST = 0.0  # what a setting that failed or diverged is worth: no accuracy is lower


class SearcherMissing(Exception):
    """The searcher needs a package that is not installed."""


def next_settings(
    searcher: str, space: Space, seed: int, budget: int, batch: int, history: Sequence[tuple[Setting, float | None]]
) -> list[Setting]:
    """The settings to try after `history` (settings with their validation accuracy, None for a failed one); empty at the end.

    Random search, and any search of a space that the budget exhausts, asks for everything at once. Bayesian search begins
    with the settings that random search begins with (a quarter of the budget, at least one batch).
    """
    total = size(space)
    if searcher == "random" or (total is not None and total <= budget):
        return [] if history else random_settings(space, seed, budget)
    begin = min(budget, max(batch, budget // 4))
    if not history:
        return random_settings(space, seed, begin)
    count = min(batch, budget - len(history))
    return _proposed(space, seed, history, count) if count > 0 else []


def _proposed(space: Space, seed: int, history: Sequence[tuple[Setting, float | None]], count: int) -> list[Setting]:
    """`count` settings that were not tried, proposed by Optuna's tree-structured Parzen estimator through Ray Tune."""
    search = _optuna(space, stream_seed("tune", "tpe", seed, len(history)), history)
    tried = {canonical_json(setting) for setting, _ in history}
    found: list[Setting] = []
    for number in range(50 * count):  # a proposal that was tried already costs nothing and teaches nothing
        setting = _setting(space, search.suggest(f"proposal-{number}"))
        if canonical_json(setting) not in tried:
            tried.add(canonical_json(setting))
            found.append(setting)
        if len(found) == count:
            return found
    fresh = (s for s in random_settings(space, seed, len(tried) + count) if canonical_json(s) not in tried)
    return [*found, *(setting for setting, _ in zip(fresh, range(count - len(found)), strict=False))]


def _optuna(space: Space, seed: int, history: Sequence[tuple[Setting, float | None]]) -> Any:
    """Ray Tune's `OptunaSearch`, told the whole history."""

    def coded(setting: Setting) -> Setting:  # by position: a choice may be of any type
        return {n: d.values.index(setting[n]) if d.kind == "choice" else setting[n] for n, d in space.items()}

    known = [(coded(setting), WORST if value is None else value) for setting, value in history]
    try:
        from bench.schedule.ray import optuna_search

        return optuna_search({name: (domain.kind, domain.values) for name, domain in space.items()}, seed, known)
    except ImportError as error:
        message = f"a Bayesian search needs Ray and Optuna ({error}): pip install 'bench-lnl[tune]', or set `searcher: random`"
        raise SearcherMissing(message) from error


def _setting(space: Space, proposal: Setting) -> Setting:
    found: Setting = {}
    for name, domain in space.items():
        value = proposal[name]
        if domain.kind == "choice":
            found[name] = domain.values[int(value)]
        else:
            found[name] = int(value) if domain.kind == "int" else domain.rounded(value)
    return found
