"""bench.noise: every convention's count, targets and rate; random streams; short forms; stored artefacts."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fields import FieldError
from bench.noise import (
    Labels,
    NoiseInput,
    NoiseKind,
    NoisyLabels,
    artefact,
    draw,
    noise_class,
    noise_identity,
    noises,
    parse_short,
    short_form,
    transition_matrix,
)

#: CIFAR-10's map (Patrini et al., 2017): truck, bird, deer move, cat and dog swap; five classes stay
CIFAR = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
KINDS = ("none", "symmetric", "asymmetric", "uniform-flip")
WHO = ("exact", "per-class", "coin")
CONVENTIONS: list[dict[str, Any]] = [
    *({"kind": "symmetric", "touched": t, "own_class": o} for t in WHO for o in (True, False)),
    *({"kind": "asymmetric", "touched": t} for t in WHO),
    *({"kind": "uniform-flip", "touched": t} for t in ("exact", "coin")),
]
DATASET = {"name": "cifar10", "revision": "1"}


def named(specification: dict[str, Any]) -> str:
    return "-".join(str(value) for value in specification.values())


every_convention = pytest.mark.parametrize("convention", CONVENTIONS, ids=named)


def balanced(count: int, classes: int = 10, confusions: dict[int, int] | None = None) -> NoiseInput:
    labels = np.arange(count) % classes
    return NoiseInput(labels, classes, CIFAR if confusions is None else confusions, tuple(map(str, range(classes))))


def fitting(convention: dict[str, Any], count: int) -> NoiseInput:
    return balanced(count, 2, {0: 1, 1: 0}) if convention["kind"] == "uniform-flip" else balanced(count)


def noisy(specification: dict[str, Any], data: NoiseInput, seed: int = 0, **dataset: Any) -> NoisyLabels:
    return draw(noise_identity(specification), data, {**DATASET, **dataset}, seed)


def changed(result: NoisyLabels, data: NoiseInput) -> int:
    return int((result.labels != data.labels).sum())


def within_four_sigma(hits: int, trials: int, probability: float) -> bool:
    return abs(hits - trials * probability) <= 4 * math.sqrt(trials * probability * (1 - probability))


# --- how many


@pytest.mark.parametrize(
    ("count", "rate", "flips"),
    [
        (4795, 0.25, 1198), (4795, 0.3, 1438), (4795, 0.35, 1678), (4795, 0.4, 1918),  # Waterbirds, Chen et al. 2022
        (162770, 0.15, 24415), (162770, 0.2, 32554), (162770, 0.25, 40692), (162770, 0.3, 48831),  # CelebA
        (7, 0.5, 3), (3, 0.3, 0),
    ],
)  # fmt: skip
def test_exact_counts_of_the_released_label_files(count: int, rate: float, flips: int) -> None:
    data = balanced(count, 2, {0: 1, 1: 0})
    assert changed(noisy({"kind": "uniform-flip", "rate": rate}, data), data) == flips
    exclusive = {"kind": "symmetric", "rate": rate, "own_class": False}
    result = noisy(exclusive, data)
    assert changed(result, data) == flips
    assert result.rate == flips / count and result.nominal == rate


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8, 0.9])
def test_symmetric_with_own_class_changes_ten_percent_less(rate: float) -> None:
    """DivideMix's "50 %" is 45 % wrong labels on ten classes, "90 %" is 81 %."""
    data = balanced(50_000)
    touched = int(rate * 50_000)
    wrong = changed(noisy({"kind": "symmetric", "rate": rate}, data), data)
    assert wrong < touched and within_four_sigma(wrong, touched, 0.9)
    assert abs(wrong / 50_000 - 0.9 * rate) < 0.005


def test_per_class_counts_are_exact_in_every_class() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 3])
    data = NoiseInput(labels, 3, {0: 1}, ("a", "b", "c"))
    result = noisy({"kind": "symmetric", "rate": 0.5, "touched": "per-class", "own_class": False}, data)
    wrong = np.bincount(labels[result.labels != labels], minlength=3)
    assert wrong.tolist() == [5, 3, 1]  # int(0.5 N_c)
    result = noisy({"kind": "asymmetric", "rate": 0.5, "touched": "per-class"}, data)
    assert np.bincount(labels[result.labels != labels], minlength=3).tolist() == [5, 0, 0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("convention", "probability"),
    [
        ({"kind": "symmetric", "rate": 0.4, "touched": "coin", "own_class": True}, 0.36),
        ({"kind": "symmetric", "rate": 0.4, "touched": "coin", "own_class": False}, 0.4),
        ({"kind": "asymmetric", "rate": 0.4, "touched": "coin"}, 0.2),  # half of the classes move
        ({"kind": "uniform-flip", "rate": 0.4, "touched": "coin"}, 0.4),
    ],
)
def test_coin_conventions(convention: dict[str, Any], probability: float, seed: int) -> None:
    data = fitting(convention, 20_000)
    counts = [changed(noisy(convention, data, s), data) for s in (seed, seed + 100)]
    assert all(within_four_sigma(wrong, 20_000, probability) for wrong in counts)
    assert counts[0] != counts[1]  # a coin, not a count


@every_convention
def test_rate_zero_changes_nothing(convention: dict[str, Any]) -> None:
    data = fitting(convention, 1_000)
    result = noisy({**convention, "rate": 0}, data)
    assert changed(result, data) == 0 and result.rate == 0.0
    assert (result.matrix == np.eye(data.num_classes)).all()


@every_convention
def test_rate_one_touches_everything(convention: dict[str, Any]) -> None:
    data = fitting(convention, 1_000)
    wrong = changed(noisy({**convention, "rate": 1}, data), data)
    if convention["kind"] == "asymmetric":
        assert wrong == 500
    elif convention.get("own_class", False):
        assert within_four_sigma(wrong, 1_000, 0.9)
    else:
        assert wrong == 1_000


# --- what a touched sample becomes


@pytest.mark.parametrize("touched", ["exact", "per-class", "coin"])
@pytest.mark.parametrize(("own_class", "stay"), [(True, 0.6 + 0.4 / 5), (False, 0.6)])
def test_symmetric_rows_are_flat(touched: str, own_class: bool, stay: float) -> None:
    data = balanced(25_000, 5)
    result = noisy({"kind": "symmetric", "rate": 0.4, "touched": touched, "own_class": own_class}, data)
    counts = np.round(result.matrix * 5_000).astype(int)
    for true, other in itertools.product(range(5), range(5)):
        expected = stay if true == other else (1 - stay) / 4
        assert within_four_sigma(int(counts[true, other]), 5_000, expected), (true, other)


@pytest.mark.parametrize("touched", ["exact", "per-class", "coin"])
def test_asymmetric_moves_only_along_the_map(touched: str) -> None:
    data = balanced(45_000)
    result = noisy({"kind": "asymmetric", "rate": 0.4, "touched": touched}, data)
    target = np.array([CIFAR.get(c, c) for c in range(10)])
    moved = result.labels != data.labels
    assert (result.labels[moved] == target[data.labels[moved]]).all()
    assert set(data.labels[moved]) == set(CIFAR)
    for source, confusable in CIFAR.items():  # of cats 40 % become dogs and the other way: labels are not read twice
        assert within_four_sigma(round(result.matrix[source, confusable] * 4_500), 4_500, 0.4)
    assert abs(result.rate - 0.2) < 0.01
    if touched == "per-class":
        assert np.bincount(data.labels[moved], minlength=10)[list(CIFAR)].tolist() == [1_800] * 5


def test_asymmetric_at_rate_one_is_the_map_itself() -> None:
    data = balanced(100)
    result = noisy({"kind": "asymmetric", "rate": 1.0}, data)
    assert result.rate == 0.5
    assert [int(row.argmax()) for row in result.matrix] == [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]


def test_uniform_flip_is_uniform_over_samples() -> None:
    labels = (np.arange(20_000) >= 15_000).astype(np.int64)
    data = NoiseInput(labels, 2, {0: 1, 1: 0}, ("no", "yes"))
    result = noisy({"kind": "uniform-flip", "rate": 0.3}, data)
    assert changed(result, data) == 6_000
    for start in range(0, 20_000, 5_000):  # any part of the data, a group among them, has the same rate
        part = slice(start, start + 5_000)
        assert within_four_sigma(int((result.labels[part] != labels[part]).sum()), 5_000, 0.3)


def test_none_keeps_the_labels_in_an_array_of_its_own() -> None:
    data = balanced(50)
    result = noisy({"kind": "none"}, data)
    assert (result.labels == data.labels).all() and result.labels is not data.labels
    assert result.nominal == 0.0 and result.definition == "labels as delivered"


# --- the matrix


def test_rows_of_the_matrix_are_true_classes() -> None:
    true, given_labels = np.array([0, 0, 1, 1, 1]), np.array([0, 2, 1, 1, 0])
    matrix = transition_matrix(true, given_labels, 4)
    expected = [[1 / 2, 0, 1 / 2, 0], [1 / 3, 2 / 3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]  # absent classes keep 1
    assert matrix == pytest.approx(np.array(expected))


rates = st.floats(0, 1)


@settings(deadline=None, database=None, derandomize=True, max_examples=150)
@given(
    st.sampled_from(CONVENTIONS), rates, st.integers(1, 60), st.integers(2, 12), st.integers(0, 2**31), st.data()
)
def test_properties(convention: dict, rate: float, count: int, classes: int, seed: int, more: st.DataObject) -> None:
    if convention["kind"] == "uniform-flip":
        classes = 2
    label = st.integers(0, classes - 1)
    true = np.array(more.draw(st.lists(label, min_size=count, max_size=count)), dtype=np.int64)
    confusions = {int(k): int(v) for k, v in more.draw(st.dictionaries(label, label, min_size=1)).items()}
    data = NoiseInput(true.copy(), classes, confusions, tuple(map(str, range(classes))))
    result = noisy({**convention, "rate": rate}, data, seed)
    assert (data.labels == true).all()  # the input is left alone
    assert result.labels.shape == (count,) and result.labels.dtype == np.int64
    assert set(result.labels) <= set(range(classes))
    wrong = result.labels != true
    assert result.rate == wrong.mean()
    assert result.matrix.sum(axis=1) == pytest.approx(np.ones(classes))
    assert (result.matrix == transition_matrix(true, result.labels, classes)).all()
    assert result.sha256 == hashlib.sha256(result.labels.astype("<i8").tobytes()).hexdigest()
    exclusive = convention["kind"] == "uniform-flip" or not convention.get("own_class", True)
    if convention["touched"] == "exact":
        assert wrong.sum() == int(rate * count) if exclusive else wrong.sum() <= int(rate * count)
    if convention["touched"] == "per-class":
        for c, members in enumerate(np.bincount(true, minlength=classes)):
            of_class = int((true[wrong] == c).sum())
            assert of_class == int(rate * members) if exclusive else of_class <= int(rate * members)


# --- random streams (law 5)


@every_convention
def test_a_seed_gives_one_realisation(convention: dict[str, Any]) -> None:
    data = fitting(convention, 500)
    hashes = [noisy(convention, data, seed).sha256 for seed in (0, 0, 1, 2)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3
    assert noisy(convention, data, revision="2").sha256 != hashes[0]
    assert noisy({**convention, "rate": 0.37}, data).sha256 != hashes[0]


@every_convention
def test_global_generators_are_neither_read_nor_moved(convention: dict[str, Any]) -> None:
    data = fitting(convention, 200)
    hashes = set()
    for seed in (0, 1):
        np.random.seed(seed)
        random.seed(seed)
        before = np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate()
        hashes.add(noisy(convention, data).sha256)
        assert before == (np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate())
    assert len(hashes) == 1


#: realisations that records quote; when one of them has to change, the `version` of its kind has to change with it
GOLDEN = {
    "symmetric-exact-True": "b3eda89dbca5a012",
    "symmetric-coin-False": "bad3468429acbca9",
    "asymmetric-per-class": "4dcb6db997c94534",
    "uniform-flip-exact": "bf4243be3156465c",
}


def test_golden_realisations() -> None:
    of_name = {named(convention): convention for convention in CONVENTIONS}
    found = {name: noisy(of_name[name], fitting(of_name[name], 300)).sha256[:16] for name in GOLDEN}
    assert found == GOLDEN


def test_other_processes_draw_the_same() -> None:
    code = "import test_noise as t; print(*[t.noisy(c, t.fitting(c, 300)).sha256 for c in t.CONVENTIONS])"
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == [noisy(c, fitting(c, 300)).sha256 for c in CONVENTIONS]


# --- short forms


def test_short_forms() -> None:
    assert parse_short("symmetric@0.5") == {"kind": "symmetric", "rate": "0.5"}
    assert parse_short(" asymmetric @ 0.4 ") == {"kind": "asymmetric", "rate": "0.4"}
    assert parse_short("none") == {"kind": "none"}
    identity = noise_identity(parse_short("symmetric@0.5"))
    assert identity == {"kind": "symmetric", "version": 1, "rate": 0.5, "touched": "exact", "own_class": True}
    assert short_form(identity) == "symmetric@0.5"
    assert short_form(noise_identity({"kind": "none"})) == "none"
    other = noise_identity({"kind": "symmetric", "rate": "2e-1", "own_class": False, "touched": "coin"})
    assert short_form(other) == "symmetric@0.2 (touched=coin, own_class=False)"


@pytest.mark.parametrize("kind", KINDS)
def test_a_short_form_reads_back(kind: str) -> None:
    identity = noise_identity({"kind": kind})
    assert noise_identity(parse_short(short_form(identity))) == identity


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("symetric@0.5", ["unknown noise 'symetric'", "did you mean", "symmetric"]),
        ("none@0.5", ["none takes no value", "write none"]),
        ("symmetric@1.5", ["rate", "1.5", "out of range", ">= 0 and <= 1"]),
        ("symmetric@-0.1", ["rate", "out of range"]),
        ("symmetric@half", ["rate", "'half'", "a number"]),
        ("symmetric@nan", ["rate", "not a valid value"]),
        ("symmetric@", ["rate", "''"]),
    ],
)
def test_errors_of_short_forms(text: str, words: list[str]) -> None:
    with pytest.raises(FieldError) as caught:
        noise_identity(parse_short(text))
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"rate": 0.5}, ["a noise needs a kind", "symmetric"]),
        ({"kind": "symmetric", "own_classes": True}, ["no field 'own_classes'", "did you mean own_class?"]),
        ({"kind": "symmetric", "touched": "most"}, ["touched", "'most'", "exact, per-class, coin"]),
        ({"kind": "uniform-flip", "touched": "per-class"}, ["touched", "exact, coin"]),
        ({"kind": "symmetric", "own_class": "no"}, ["own_class", "true or false"]),
        ({"kind": 3}, ["unknown noise 3"]),
    ],
)
def test_errors_of_specifications(specification: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(FieldError) as caught:
        noise_identity(specification)
    assert all(word in str(caught.value) for word in words)


@every_convention
def test_definitions_leave_no_convention_open(convention: dict[str, Any]) -> None:
    kind = noise_class(convention["kind"])
    sentences = [kind(**{k: v for k, v in c.items() if k != "kind"}, rate=0.35).definition()
                 for c in CONVENTIONS if c["kind"] == convention["kind"]]  # fmt: skip
    assert all("0.35" in sentence for sentence in sentences) and len(set(sentences)) == len(sentences)


# --- kinds that do not fit


def test_misfits_are_named_when_planned() -> None:
    ten = SimpleNamespace(slug="ten", num_classes=10, confusable=False)
    two = SimpleNamespace(slug="two", num_classes=2, confusable=True)
    assert noise_class("asymmetric").misfit(ten) == "ten has no map of confusable classes"
    assert "ten has 10 classes, not two" in str(noise_class("uniform-flip").misfit(ten))
    assert [noise_class(kind).misfit(two) for kind in KINDS] == [None] * len(KINDS)
    assert noise_class("symmetric").misfit(ten) is None and noise_class("none").misfit(ten) is None


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_misfits_raise_when_drawn(rate: float) -> None:
    """No kind answers a data set that it is not defined on with clean labels."""
    with pytest.raises(FieldError, match="map of confusable classes"):
        noisy({"kind": "asymmetric", "rate": rate}, balanced(100, 10, {}))
    with pytest.raises(FieldError, match="two classes"):
        noisy({"kind": "uniform-flip", "rate": rate}, balanced(100, 3))


@pytest.mark.parametrize("wrong", [np.array([0, 1, 3]), np.array([0, -1, 2]), np.array([0, 1])])
def test_a_kind_cannot_produce_impossible_labels(wrong: Labels) -> None:
    class Broken(NoiseKind):
        slug = "broken"
        short_field = ""

        def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
            return wrong

    with patch.dict(noises(), {"broken": Broken}), pytest.raises(FieldError, match="broken produced labels"):
        noisy({"kind": "broken"}, balanced(3, 3))


# --- artefacts (law 4)


def stored(tmp_path: Path, seed: int = 0) -> tuple[NoisyLabels, Path]:
    identity = noise_identity(parse_short("symmetric@0.5"))
    before = set(tmp_path.glob("*"))
    result = artefact(identity, balanced(200), DATASET, seed, tmp_path)
    new = set(tmp_path.glob("*")) - before
    return result, new.pop() if new else next(iter(before))


def test_an_artefact_is_stored_beside_its_specification(tmp_path: Path) -> None:
    result, path = stored(tmp_path)
    assert path.name.startswith("cifar10-symmetric-") and path.suffix == ".npz"
    with np.load(path, allow_pickle=False) as file:
        assert (file["labels"] == result.labels).all() and (file["matrix"] == result.matrix).all()
        assert str(file["sha256"]) == result.sha256 and float(file["rate"]) == result.rate
        assert '"seed":0' in str(file["specification"]) and "0.5" in str(file["definition"])
    other, elsewhere = stored(tmp_path, seed=1)
    assert elsewhere != path and other.sha256 != result.sha256
    identity = noise_identity(parse_short("symmetric@0.5"))
    assert artefact(identity, balanced(200), DATASET, 0, None).sha256 == result.sha256


def test_an_intact_file_is_left_alone(tmp_path: Path) -> None:
    _, path = stored(tmp_path)
    before = path.stat().st_ino
    stored(tmp_path)
    assert path.stat().st_ino == before


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    result, path = stored(tmp_path)
    good = path.read_bytes()
    flipped = []
    for position in range(0, len(good), 13):
        flipped.append(bytearray(good))
        flipped[-1][position] ^= 0xFF
    npy = tmp_path.parent / "array.npy"
    np.save(npy, result.labels)
    for damaged in [*flipped, b"", good[:-1], good[: len(good) // 2], good + b"\0", npy.read_bytes()]:
        path.write_bytes(damaged)
        assert stored(tmp_path)[0].sha256 == result.sha256
        assert path.read_bytes() == good
