"""bench.noise: label-making networks. Semantic and polynomial-margin-diminishing noise, and the cache of their networks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import bench.data
from bench.fields import FieldError
from bench.noise import NoiseInput, NoisyLabels, draw, noise_class, noise_identity, plan_noise
from bench.noise import _teacher as teacher_module
from bench.noise.instance_pmd import corrupt_by_margin, margin_function

DATASET = {"name": "toy", "revision": "1"}
SEMANTIC = {"kind": "semantic", "network": "mlp", "rate": 0.3, "share": 0.1, "epochs": 40, "tolerance": 0.03}
PMD = {"kind": "instance-pmd", "network": "mlp", "rate": 0.4, "epochs": 4, "lr": 0.02, "batch_size": 32}


def toy(count: int = 600, cache: Path | None = None) -> NoiseInput:
    """Four classes of 1x4x4 pictures that overlap: a small network is right on some 85 %."""
    rng = np.random.Generator(np.random.PCG64(3))
    labels = rng.permutation(np.arange(count) % 4)
    prototypes = rng.integers(60, 196, (4, 1, 4, 4))
    images = np.clip(prototypes[labels] + rng.normal(0, 70, (count, 1, 4, 4)), 0, 255).astype(np.uint8)
    return NoiseInput(labels, 4, {}, tuple("abcd"), pixels=images.__getitem__, statistics=lambda: ((0.5,), (0.3,)), cache=cache)


def noisy(noise: Any, data: NoiseInput, seed: int = 0) -> NoisyLabels:
    return draw(noise_identity(noise), data, DATASET, seed)


def test_semantic_noise_hits_its_target(tmp_path: Path) -> None:
    data = toy(cache=tmp_path)
    result = noisy(SEMANTIC, data)
    assert abs(result.rate - 0.3) <= 0.03 and result.nominal == 0.3
    share = (result.matrix * (1 - np.eye(4))).max(axis=1) / (1 - result.matrix.diagonal())
    assert share.mean() > 0.4  # a network confuses some pairs more than others; uniform noise gives 1/3
    assert noisy(SEMANTIC, data, seed=7).sha256 == result.sha256  # one set of labels for all seeds
    assert noisy({**SEMANTIC, "network_seed": 1}, data).sha256 != result.sha256


def test_the_clean_subset_is_balanced_and_fixed() -> None:
    kind = noise_class("semantic")(network="mlp", share=0.1)
    subset = kind.clean_subset(toy())
    assert np.bincount(toy().labels[subset]).tolist() == [15] * 4 and len(set(subset.tolist())) == 60
    assert (subset == kind.clean_subset(toy())).all()


def test_the_subset_may_keep_its_labels() -> None:
    data = toy()
    result = noisy({**SEMANTIC, "stop": "end", "epochs": 12, "tolerance": 0.5, "subset": "true"}, data)
    subset = noise_class("semantic")(network="mlp", share=0.1).clean_subset(data)
    assert (result.labels[subset] == data.labels[subset]).all() and result.rate > 0.02


@pytest.mark.parametrize(("rate", "words"), [(0.01, "more clean data"), (0.99, "less clean data")])
def test_a_target_out_of_reach_says_what_to_change(rate: float, words: str, tmp_path: Path) -> None:
    noise = {**SEMANTIC, "rate": rate, "epochs": 4, "tolerance": 0.005}
    for _ in range(2):  # the second time from the cache: no cell pays for it again
        with pytest.raises(FieldError, match=words) as caught:
            noisy(noise, toy(cache=tmp_path))
        assert f"not {100 * rate:g} +- 0.5 %" in str(caught.value)


def counted(calls: list[int]) -> Callable[..., None]:
    original = teacher_module.train

    def train(*args: Any) -> None:
        calls.append(1)
        original(*args)

    return train


def test_networks_are_shared_by_what_they_are_trained_on(tmp_path: Path) -> None:
    calls: list[int] = []
    data = toy(cache=tmp_path)
    with patch.object(teacher_module, "train", counted(calls)):
        results = [
            noisy({**PMD, **more}, data, seed)
            for seed, more in enumerate(({}, {"type": "II"}, {"type": "III", "rate": 0.5}, {"rule": "code"}))
        ]
        assert len(calls) == 1 and len({result.sha256 for result in results}) == 4
        noisy({**PMD, "epochs": 5}, data)
        noisy({**PMD, "network_seed": 1}, data)
        assert len(calls) == 3
        other = toy(cache=tmp_path)
        changed = 255 - other.need_pixels("x")(np.arange(600))
        noisy(PMD, replace(other, pixels=changed.__getitem__))  # other pictures under the same name
        assert len(calls) == 4
        relabelled = replace(data, labels=(data.labels + 1) % 4)
        noisy(PMD, relabelled)
        assert len(calls) == 5
        noisy(PMD, replace(data, labels=relabelled.labels, true=data.labels))  # true labels count, not the given ones
        assert len(calls) == 5


@pytest.mark.parametrize("change", [{"pad": 1}, {"flip": True}, {"statistics": lambda: ((0.2,), (0.6,))}], ids=lambda c: [*c][0])
def test_networks_are_not_shared_between_preprocessings(tmp_path: Path, change: dict[str, Any]) -> None:
    """Data sets with the same pictures differ in it; which cell runs first must not decide the others' labels."""
    noise, data = {**SEMANTIC, "stop": "end", "epochs": 4, "tolerance": 1}, toy(cache=tmp_path)
    first = noisy(noise, data)
    alone = noisy(noise, replace(data, cache=None, **change))
    assert alone.sha256 != first.sha256  # else this would show nothing
    assert noisy(noise, replace(data, **change)).sha256 == alone.sha256


@pytest.mark.parametrize("damage", [b"", b"no zip at all", None])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    data = toy(cache=tmp_path)
    first = noisy(PMD, data)
    (path,) = tmp_path.glob("*.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content) if damage is None else damage)
    assert noisy(PMD, data).sha256 == first.sha256
    calls: list[int] = []
    with patch.object(teacher_module, "train", counted(calls)):
        assert noisy(PMD, data).sha256 == first.sha256
    assert not calls


def test_two_at_once_train_once(tmp_path: Path) -> None:
    calls: list[int] = []
    results: list[str] = []
    with patch.object(teacher_module, "train", counted(calls)):
        threads = [threading.Thread(target=lambda: results.append(noisy(PMD, toy(cache=tmp_path)).sha256)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(calls) == 1 and len(set(results)) == 1 and len(results) == 3


def both_hashes() -> list[str]:
    return [noisy(SEMANTIC, toy()).sha256, noisy(PMD, toy()).sha256]


def test_other_processes_train_the_same_network() -> None:
    """Global generators play no part, and are left as they were."""
    torch.manual_seed(0)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    here = both_hashes()
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    code = "import torch, test_noise_networks as t; torch.manual_seed(9); print(*t.both_hashes())"
    path = f"{Path(__file__).parent}:{Path(__file__).parent.parent}"
    environment = {**os.environ, "PYTHONHASHSEED": "8", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == here


# --- polynomial margins


def test_margin_functions_by_hand() -> None:
    margin = np.array([0.0, 0.5, 1.0])
    assert margin_function("I", margin).tolist() == [0.5, 0.375, 0.0]
    assert margin_function("II", margin).tolist() == [1.0, 0.875, 0.0]
    assert margin_function("III", margin).tolist() == pytest.approx([1.0, 1 - (0.5 + 0.25 + 0.125) / 3, 0.0])


def kind(**fields: Any) -> Any:
    return noise_class("instance-pmd")(network="mlp", **fields)


@pytest.mark.parametrize("rule", ["paper", "code"])
@pytest.mark.parametrize("type_", ["I", "II", "III"])
@pytest.mark.parametrize("rate", [0.45, 0.7])
def test_margin_noise_has_its_rate_and_its_targets(type_: str, rule: str, rate: float) -> None:
    rng = np.random.Generator(np.random.PCG64(5))
    eta = rng.dirichlet(np.full(6, 0.15), 20_000)
    true = eta.argmax(axis=1)
    unsure = rng.random(20_000) < 0.1
    true[unsure] = rng.integers(0, 6, unsure.sum())
    noise = kind(rate=rate, type=type_, rule=rule)
    given = corrupt_by_margin(eta, true, noise, np.random.Generator(np.random.PCG64(0)))
    assert abs((given != true).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / 20_000)
    order = np.argsort(-eta, axis=1)
    margin = eta[np.arange(20_000), order[:, 0]] - eta[np.arange(20_000), order[:, 1]]
    to_second = given == order[:, 1]
    if rule == "code":
        assert ((given == order[:, 0]) | to_second).all()
    shares = [to_second[(margin >= low) & (margin < low + 0.2)].mean() for low in (0.0, 0.4, 0.8)]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[2]  # errors diminish


def test_margin_noise_by_hand() -> None:
    """One sure and one unsure picture, 20 000 of each: factor a solves the rate exactly, so both flip rates are known."""
    eta = np.repeat([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0]], 20_000, axis=0)
    true = np.zeros(40_000, dtype=int)
    given = corrupt_by_margin(eta, true, kind(rate=0.35, type="I"), np.random.Generator(np.random.PCG64(1)))
    # the sure one (m = 1, f = 0) never flips; the other is wrong in 70 %: 40 % drawn as class 1, half of the rest flipped
    assert (given[:20_000] == 0).all()
    assert abs((given[20_000:] == 1).mean() - 0.7) < 4 * np.sqrt(0.21 / 20_000)


def test_margins_that_cannot_give_the_rate() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    sure = np.tile([1.0, 0.0], (100, 1))
    with pytest.raises(FieldError, match="too sure of them"):
        corrupt_by_margin(sure, np.zeros(100, dtype=int), kind(rate=0.35), rng)
    flat = np.tile([0.5, 0.5], (100, 1))
    with pytest.raises(FieldError, match="wrong on 50.0 % of the labels, more than 35 %"):
        corrupt_by_margin(flat, np.zeros(100, dtype=int), kind(rate=0.35), rng)


def test_hybrid_noise_of_plc(tmp_path: Path) -> None:
    data = toy(cache=tmp_path)
    plain = noisy(PMD, data)
    steps = [PMD, {"kind": "symmetric", "rate": 0.3, "own_class": False, "touched": "coin"}]
    hybrid = noisy({"kind": "sequence", "steps": steps}, data)
    assert abs(plain.rate - 0.4) < 4 * np.sqrt(0.24 / 600)
    expected = plain.rate * (1 - 0.3 / 3) + (1 - plain.rate) * 0.3
    assert abs(hybrid.rate - expected) < 8 * np.sqrt(0.25 / 600)


# --- planning, and data sets as they come


@pytest.mark.parametrize("noise", [SEMANTIC, PMD])
def test_the_network_must_be_named(noise: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match="needs the network that makes it"):
        plan_noise({**noise, "network": ""})
    with pytest.raises(FieldError, match="unknown model 'mpl'.*mlp"):
        plan_noise({**noise, "network": "mpl"})


def test_semantic_noise_on_the_embedded_digits() -> None:
    loaded = bench.data.load({"name": "digits", "revision": bench.data.dataset_class("digits").revision})
    data = NoiseInput.of(loaded, "digits")
    result = noisy({"kind": "semantic", "network": "tiny-cnn", "rate": 0.3, "epochs": 60, "tolerance": 0.02}, data)
    assert abs(result.rate - 0.3) <= 0.02
    assert "prediction of a tiny-cnn trained on a clean share 0.05 of each class until its error is 0.3" in result.definition
