"""Which settings are tried next, as a function of space, seed and history alone; keeps no state between calls."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from bench.cell import canonical_json, stream_seed
from bench.tune.space import Domain, Setting, Space, random_settings, size

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
    try:
        import optuna
        from ray import tune
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        message = f"a Bayesian search needs Ray and Optuna ({error}): pip install 'bench-lnl[tune]', or set `searcher: random`"
        raise SearcherMissing(message) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)

    def ray_domain(domain: Domain) -> Any:
        if domain.kind == "choice":  # by position: a choice may be of any type
            return tune.choice(list(range(len(domain.values))))
        low, high = domain.values
        if domain.kind == "int":
            return tune.randint(low, high + 1)
        return tune.loguniform(low, high) if domain.kind == "loguniform" else tune.uniform(low, high)

    def coded(setting: Setting) -> Setting:
        return {n: d.values.index(setting[n]) if d.kind == "choice" else setting[n] for n, d in space.items()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return OptunaSearch(
            OptunaSearch.convert_search_space({name: ray_domain(domain) for name, domain in space.items()}),
            metric="value", mode="max",
            # every proposal of a batch is made without the results of the others; the liar keeps them apart
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=1, multivariate=True, constant_liar=True),
            points_to_evaluate=[coded(setting) for setting, _ in history],
            evaluated_rewards=[WORST if value is None else value for _, value in history],
        )  # fmt: skip


def _setting(space: Space, proposal: Setting) -> Setting:
    found: Setting = {}
    for name, domain in space.items():
        value = proposal[name]
        if domain.kind == "choice":
            found[name] = domain.values[int(value)]
        else:
            found[name] = int(value) if domain.kind == "int" else domain.rounded(value)
    return found
