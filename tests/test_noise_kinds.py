"""bench.noise beyond symmetric and asymmetric: pairflip, matrix, long tails, open sets, sequences, instance noise."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import Loaded, Split, datasets
from bench.fields import FieldError
from bench.noise import (
    Corruption,
    Labels,
    NoiseInput,
    NoiseKind,
    NoisyLabels,
    Replaced,
    artefact,
    draw,
    noise_class,
    noise_identity,
    noises,
    parse_short,
    plan_noise,
    short_form,
)
from bench.noise._artefact import checked
from bench.noise._choose import draw_from_rows
from bench.noise.instance_ptd import truncated_mean, truncated_normal

CIFAR = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
DATASET = {"name": "cifar10", "revision": "1"}
#: one specification per convention that needs no network and no file
NOISES: list[Any] = [
    "pairflip@0.3",
    {"kind": "pairflip", "rate": 0.3, "touched": "exact", "target": "random"},
    {"kind": "pairflip", "rate": 0.3, "touched": "per-class"},
    {"kind": "asymmetric", "rate": 0.3, "touched": "sequential"},
    {"kind": "asymmetric", "rate": 0.3, "map": "blocks"},
    {"kind": "asymmetric", "rate": 0.3, "map": "superclass", "touched": "coin"},
    {"kind": "symmetric", "rate": 0.3, "targets": "frequency"},
    {"kind": "symmetric", "rate": 0.3, "targets": "frequency", "own_class": False, "touched": "coin"},
    {"kind": "matrix", "rows": (0.7 * np.eye(10) + 0.03).tolist()},
    "dividemix-seed@0.3",
    {"kind": "dividemix-seed", "rate": 0.3, "mode": "asym", "variant": "scanmix"},
    "instance-ptd@0.3",
    {"kind": "instance-ptd", "rate": 0.3, "input": "raw"},
    {"kind": "instance-ptd", "rate": 0.3, "input": "unit", "touched": "exact"},
    "open-set@0.3",
    {"kind": "open-set", "rate": 0.3, "open": 0.5, "closed": "asymmetric"},
    "longtail@0.1",
    "longtail@0.1 + symmetric@0.3",
    "longtail@0.5 + pairflip@0.2 + instance-ptd@0.2",
    "longtail@0.5 + open-set@0.2",
]  # fmt: skip


def named(noise: Any) -> str:
    return noise if isinstance(noise, str) else "-".join(str(v) for v in noise.values() if not isinstance(v, list))


every_noise = pytest.mark.parametrize("noise", NOISES, ids=named)


def pictures(count: int, shape: tuple[int, int, int] = (3, 4, 4), seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (count, *shape)).astype(np.uint8)


def balanced(count: int, classes: int = 10, **more: Any) -> NoiseInput:
    images = pictures(count)
    facts: dict[str, Any] = {
        "confusions": CIFAR, "class_names": tuple(map(str, range(classes))), "dataset": "cifar10",
        "superclasses": tuple(c % 3 for c in range(classes)), "pixels": images.__getitem__,
        "statistics": lambda: ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3)), "source_size": lambda slug: 700,
    }  # fmt: skip
    return NoiseInput(np.arange(count) % classes, classes, **{**facts, **more})


def noisy(noise: Any, data: NoiseInput, seed: int = 0) -> NoisyLabels:
    return draw(plan_noise(noise).identity, data, DATASET, seed)


def wrong(result: NoisyLabels) -> int:
    return int((result.labels != result.true).sum())


def within_four_sigma(hits: int, trials: int, probability: float) -> bool:
    return abs(hits - trials * probability) <= 4 * math.sqrt(trials * probability * (1 - probability)) + 1e-9


# --- what holds for all of them


@every_noise
def test_an_artefact_is_consistent(noise: Any) -> None:
    data = balanced(2_000)
    result = noisy(noise, data)
    kept = data.labels if result.keep is None else data.labels[result.keep]
    replaced = np.zeros(len(kept), dtype=bool)
    if result.replaced is not None:
        replaced[result.replaced.position] = True
    assert (result.true == np.where(replaced, -1, kept)).all()
    assert result.labels.dtype == np.int64 and len(result.labels) == len(kept)
    assert result.rate == (result.labels != result.true).mean()
    assert result.matrix.sum(axis=1) == pytest.approx(np.ones(10))
    if result.expected is not None:
        assert within_four_sigma(wrong(result), len(kept), result.expected)
    assert (data.labels == np.arange(2_000) % 10).all()


@every_noise
def test_seeds_decide(noise: Any) -> None:
    data = balanced(600)
    hashes = [noisy(noise, data, seed).sha256 for seed in (0, 0, 1)]
    fixed = isinstance(noise, dict) and noise["kind"] == "dividemix-seed" or noise == "dividemix-seed@0.3"
    assert hashes[0] == hashes[1] and (hashes[0] == hashes[2]) == fixed


def all_hashes() -> list[str]:
    return [noisy(noise, balanced(400)).sha256 for noise in NOISES]


@pytest.mark.parametrize("threads", ["1", "3"])
def test_other_processes_and_thread_counts_draw_the_same(threads: str) -> None:
    code = "import test_noise_kinds as t; print(*t.all_hashes())"
    environment = {
        "PYTHONHASHSEED": "5", "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}",
        "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == all_hashes()


@pytest.mark.parametrize("kind", sorted(set(noises()) - {"none", "longtail", "matrix", "human", "file", "sequence"}))
def test_rate_zero_changes_nothing(kind: str) -> None:
    """Kinds with a network do not even ask for images."""
    network = {"network": "mlp"} if kind in ("semantic", "instance-pmd") else {}
    data = replace(balanced(500, 2 if kind == "uniform-flip" else 10), cache=None)
    data = replace(data, pixels=None) if network else data
    result = noisy({"kind": kind, "rate": 0, **network}, data)
    assert wrong(result) == 0 and result.rate == 0 and result.keep is None and result.replaced is None


@pytest.mark.parametrize("kind", sorted(kind for kind, cls in noises().items() if "rate" in cls.fields()))
@pytest.mark.parametrize("rate", [-0.1, 1.1, "half", float("nan")])
def test_rates_that_are_none_are_refused_by_name(kind: str, rate: Any) -> None:
    with pytest.raises(FieldError) as caught:
        plan_noise(
            {"kind": kind, "rate": rate, "network": "mlp"}
            if "network" in noises()[kind].fields()
            else {"kind": kind, "rate": rate}
        )
    assert caught.value.key == "rate"


@every_noise
def test_definitions_and_labels(noise: Any) -> None:
    planned = plan_noise(noise)
    definition = noisy(noise, balanced(300)).definition
    assert definition and "{" not in definition and definition == definition.strip()
    assert planned.label == short_form(planned.identity)
    assert noise_identity(planned.identity) == planned.identity  # what a cell holds resolves to itself
    if isinstance(noise, str):
        assert planned.label == noise


def test_every_kind_has_a_line_in_the_listing() -> None:
    assert all(20 < len(cls.summary) < 140 and "\n" not in cls.summary for cls in noises().values())


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(st.floats(0, 1), st.sampled_from(["exact", "coin"]), st.integers(2, 60), st.integers(0, 99), st.integers(0, 99))
def test_who_is_touched_does_not_depend_on_the_labels(rate: float, touched: str, count: int, one: int, two: int) -> None:
    """Of exact counts and of coins the definition promises it; a count per class depends on the classes."""
    orders = [np.random.Generator(np.random.PCG64(seed)).integers(0, 5, count) for seed in (one, two)]
    for noise in ({"kind": "symmetric", "own_class": False}, {"kind": "pairflip"}, {"kind": "asymmetric", "map": "blocks"}):
        results = [noisy({**noise, "rate": rate, "touched": touched}, NoiseInput(labels, 5, {}, ())) for labels in orders]
        moved = [np.flatnonzero(result.labels != labels) for result, labels in zip(results, orders, strict=True)]
        assert moved[0].tolist() == moved[1].tolist()


pairs = st.integers(2, 12)


@settings(deadline=None, database=None, derandomize=True, max_examples=120)
@given(st.sampled_from(["coin", "exact", "per-class"]), st.floats(0, 1), st.integers(1, 80), pairs, st.integers(0, 999))
def test_pairflip_properties(touched: str, rate: float, count: int, classes: int, seed: int) -> None:
    labels = np.random.Generator(np.random.PCG64(seed)).integers(0, classes, count)
    data = NoiseInput(labels, classes, {}, ())
    for target in ("next", "random"):
        result = noisy({"kind": "pairflip", "rate": rate, "touched": touched, "target": target}, data, seed)
        targets = noise_class("pairflip")(target=target).targets(classes)
        moved = result.labels != labels
        assert (result.labels[moved] == targets[labels[moved]]).all() and (targets != np.arange(classes)).all()
        if touched == "exact":
            assert moved.sum() == int(rate * count)
        if touched == "per-class":
            sizes, flipped = (np.bincount(x, minlength=classes) for x in (labels, labels[moved]))
            assert flipped.tolist() == [int(rate * n) for n in sizes]


@settings(deadline=None, database=None, derandomize=True, max_examples=80)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 200), st.integers(0, 999))
def test_open_set_properties(rate: float, share: float, count: int, seed: int) -> None:
    data = balanced(count)
    result = noisy({"kind": "open-set", "rate": rate, "open": share}, data, seed)
    noisy_count = int(rate * count)
    opened = int(share * noisy_count)
    positions = result.replaced.position if result.replaced is not None else np.empty(0, dtype=int)
    assert len(set(positions.tolist())) == opened == (result.true == -1).sum()
    assert (result.labels[positions] == data.labels[positions]).all()  # the label stays, the picture goes
    changed = result.labels != data.labels
    assert changed.sum() <= noisy_count - opened and not changed[positions].any()
    if result.replaced is not None:
        assert len(set(result.replaced.index.tolist())) == opened and result.replaced.index.max(initial=0) < 700
        assert result.replaced.source["name"] == "cifar100"


@settings(deadline=None, database=None, derandomize=True, max_examples=80)
@given(st.floats(0.02, 1), st.integers(2, 8), st.integers(50, 60), st.integers(0, 999))
def test_long_tail_properties(ratio: float, classes: int, each: int, seed: int) -> None:
    data = NoiseInput(np.arange(classes * each) % classes, classes, {}, tuple(map(str, range(classes))))
    result = noisy({"kind": "longtail", "ratio": ratio}, data, seed)
    assert result.keep is not None
    sizes = np.bincount(data.labels[result.keep], minlength=classes)
    assert sizes.tolist() == [int(each * ratio ** (c / (classes - 1))) for c in range(classes)]
    assert (np.diff(result.keep) > 0).all() and wrong(result) == 0


# --- pairflip and matrices


def test_the_random_target_is_that_of_the_published_code() -> None:
    """np.random.seed(1), then one choice among the others per row, as GLC and TABASCO draw it: pinned for ten classes."""
    legacy = np.random.RandomState(1)
    expected = [int(legacy.choice([j for j in range(10) if j != i])) for i in range(10)]
    assert noise_class("pairflip")(target="random").targets(10).tolist() == expected == [6, 9, 6, 0, 0, 1, 8, 6, 2, 4]


def test_rows_are_drawn_by_their_probabilities() -> None:
    rows = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.25, 0.75, 0.0]])
    uniform = np.array([0.0, 0.49, 0.5, 1 - 1e-16])
    assert draw_from_rows(np.repeat(rows[:1], 4, axis=0), uniform).tolist() == [0, 0, 1, 1]
    assert draw_from_rows(np.repeat(rows[1:2], 4, axis=0), uniform).tolist() == [2, 2, 2, 2]
    result = noisy({"kind": "matrix", "rows": rows.tolist()}, NoiseInput(np.arange(30_000) % 3, 3, {}, ()))
    for i in range(3):
        for j in range(3):
            assert within_four_sigma(round(result.matrix[i, j] * 10_000), 10_000, rows[i, j]), (i, j)
    assert result.nominal == pytest.approx((0.5 + 1.0 + 1.0) / 3)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "needs its matrix"),
        ([[0.5, 0.4], [0, 1]], "row 0 of the transition matrix sums to 0.9, not to 1"),
        ([[1, 0], [0.3, 0.8]], "row 1 of the transition matrix sums to 1.1, not to 1"),
        ([[1.5, -0.5], [0, 1]], "probabilities"),
        ([[1, 0, 0], [0, 1, 0]], "square"),
        ([[1, 0], [1]], "equally long"),
        ([[1, "a"], [0, 1]], "not a valid value"),
        ("half", "not a valid value"),
    ],
)
def test_matrices_that_are_none_are_refused_by_name(rows: Any, words: str) -> None:
    with pytest.raises(FieldError, match=words) as caught:
        plan_noise({"kind": "matrix", "rows": rows})
    assert caught.value.key == "rows"


def test_a_matrix_of_another_size() -> None:
    identity = noise_identity({"kind": "matrix", "rows": np.eye(3).tolist()})
    assert "3 rows, ten has 10 classes" in str(
        noise_class("matrix").misfit(SimpleNamespace(slug="ten", num_classes=10), identity)
    )
    with pytest.raises(FieldError, match="3 rows, the data set 10 classes"):
        draw(identity, balanced(50), DATASET, 0)


FOLDER: list[Any] = [
    "none", "symmetric@0.3", "pairflip@0.3", "uniform-flip@0.3", "longtail@0.5", "instance-ptd@0.3", "dividemix-seed@0.3",
    {"kind": "matrix", "rows": [[0.8, 0.2], [0.5, 0.5]]}, {"kind": "open-set", "rate": 0.3, "source": "digits"},
    "file@labels.json", "longtail@0.5 + symmetric@0.3", {"kind": "instance-pmd", "rate": 0, "network": "mlp"},
    {"kind": "semantic", "network": "mlp", "stop": "end", "tolerance": 1, "epochs": 1, "share": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("noise", FOLDER, ids=named)
def test_an_image_folder_takes_every_noise_without_a_class_map(tmp_path: Path, noise: Any) -> None:
    """Only its files tell how many classes it has, so the class of the data set says 0."""
    from resident_trees import own_list, own_rows

    from bench.noise.tools import make

    own_list(tmp_path, [row for row in own_rows() if "cow" not in row.values()])  # two classes: uniform-flip needs them
    data = datasets()["image-folder"](folder="own", csv="labels.csv", size=16).load(tmp_path)
    (tmp_path / "labels.json").write_text(str([1] * len(data.train)))
    result = make(data, {"name": "image-folder", "revision": "1"}, noise, folders=(tmp_path,))
    assert data.num_classes == 2 and result.labels.max() < 2


def test_the_image_folder_list_names_every_kind() -> None:
    tried = {plan["kind"] for plan in (parse_short(noise) if isinstance(noise, str) else noise for noise in FOLDER)}
    assert set(noises()) - tried == {"asymmetric", "human"}


# --- symmetric in proportion to class frequencies


@pytest.mark.parametrize("own_class", [True, False])
def test_frequency_targets_keep_the_tail(own_class: bool) -> None:
    labels = np.repeat([0, 1, 2, 3], [6_000, 3_000, 1_000, 0])
    noise = {"kind": "symmetric", "rate": 0.5, "targets": "frequency", "own_class": own_class}
    result = noisy(noise, NoiseInput(labels, 4, {}, ()))
    share = np.array([0.6, 0.3, 0.1, 0.0])
    for true, size in enumerate((6_000, 3_000, 1_000)):
        others = share if own_class else np.where(np.arange(4) == true, 0, share) / (1 - share[true])
        expected = 0.5 * others + 0.5 * (np.arange(4) == true)
        for target in range(4):
            hits = round(result.matrix[true, target] * size)
            assert abs(hits - size * expected[target]) < 4.5 * math.sqrt(size * 0.25), (true, target)
    assert (result.labels != 3).all()  # a class without samples is nobody's target


# --- asymmetric maps


def test_cifar100_must_say_which_map() -> None:
    asymmetric = noise_class("asymmetric")
    hundred = SimpleNamespace(slug="cifar100", num_classes=100, confusable=True, superclasses=tuple(range(100)))
    assert "choose `map: superclass` or `map: blocks`" in str(asymmetric.misfit(hundred, asymmetric.identity({})))
    assert asymmetric.misfit(hundred, asymmetric.identity({"map": "blocks"})) is None
    assert asymmetric.misfit(hundred, asymmetric.identity({"map": "superclass"})) is None
    seven = SimpleNamespace(slug="seven", num_classes=7, confusable=True, superclasses=())
    assert "no blocks of 5" in str(asymmetric.misfit(seven, asymmetric.identity({"map": "blocks"})))
    assert asymmetric.misfit(seven, asymmetric.identity({"map": "superclass"})) == "seven has no superclasses"
    assert asymmetric.misfit(seven, asymmetric.identity({})) is None
    assert "no map for cifar100" in str(noise_class("dividemix-seed").misfit(hundred, {"mode": "asym"}))


def test_a_new_field_does_not_move_old_cells() -> None:
    assert noise_identity(parse_short("symmetric@0.5")) == {
        "kind": "symmetric", "version": 1, "rate": 0.5, "touched": "exact", "own_class": True,
    }  # fmt: skip
    assert noise_identity(parse_short("asymmetric@0.4")) == {
        "kind": "asymmetric", "version": 1, "rate": 0.4, "touched": "exact",
    }  # fmt: skip


# --- long tails and sequences


def test_a_class_may_not_vanish() -> None:
    with pytest.raises(FieldError, match="class 8 would keep no sample at ratio 0.01"):
        noisy("longtail@0.01", balanced(500))


def test_steps_work_on_what_the_step_before_left() -> None:
    """Swapping two classes for certain twice restores the labels; once after another map composes them."""
    swap = {"kind": "matrix", "rows": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}
    shift = {"kind": "pairflip", "rate": 1, "touched": "exact"}
    data = NoiseInput(np.arange(30) % 3, 3, {}, ("a", "b", "c"))
    assert wrong(noisy({"kind": "sequence", "steps": [swap, swap]}, data)) == 0
    both = noisy({"kind": "sequence", "steps": [swap, shift]}, data)
    assert both.labels[:3].tolist() == [2, 1, 0]  # 0 -> 1 -> 2, 1 -> 0 -> 1, 2 -> 2 -> 0
    assert both.rate == pytest.approx(2 / 3)  # against the true labels, not against the step before
    assert "; then " in both.definition


def test_kept_samples_compose() -> None:
    data = balanced(3_000)
    result = noisy("longtail@0.5 + longtail@0.5", data)
    assert result.keep is not None and (data.labels[result.keep] == result.labels).all()
    once = noisy("longtail@0.5", data)
    assert once.keep is not None and len(result.keep) < len(once.keep) and (np.diff(result.keep) > 0).all()


def test_instance_noise_after_a_long_tail_sees_the_kept_pictures() -> None:
    data = balanced(2_000)
    asked: list[Labels] = []

    def pixels(index: Labels) -> Any:
        asked.append(index)
        return pictures(2_000)[index]

    result = noisy("longtail@0.1 + instance-ptd@0.3", replace(data, pixels=pixels))
    assert result.keep is not None and set(np.concatenate(asked).tolist()) == set(result.keep.tolist())


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"kind": "sequence"}, "two noises or more"),
        ({"kind": "sequence", "steps": ["symmetric@0.2"]}, "two noises or more"),
        ({"kind": "sequence", "steps": "symmetric@0.2 + pairflip"}, "two noises or more"),
        ({"kind": "sequence", "steps": ["symmetric@0.2", 3]}, "step 1 is neither"),
        ({"kind": "sequence", "steps": ["none", "none"], "rate": 0.5}, "no field 'rate'"),
        ({"kind": "sequence", "steps": ["none", {"kind": "sequence", "steps": ["none", "none"]}]}, "within a sequence"),
        ("open-set@0.2 + symmetric@0.2", "only be the last step"),
        ("longtail@0.1 + symetric@0.4", "did you mean symmetric"),
        ("longtail@0.1 + symmetric@1.4", "out of range"),
    ],
)
def test_sequences_that_are_none(noise: Any, words: str) -> None:
    with pytest.raises(FieldError, match=words):
        plan_noise(noise)


def test_a_sequence_is_planned_from_its_steps() -> None:
    planned = plan_noise("longtail@0.01 + symmetric@0.4")
    assert planned.rate == 0.4 and noisy("longtail@0.5 + symmetric@0.4", balanced(500)).nominal == 0.4
    assert [step["kind"] for step in planned.identity["steps"]] == ["longtail", "symmetric"]
    ten = SimpleNamespace(slug="ten", num_classes=10, confusable=False, superclasses=())
    identity = noise_identity(parse_short("longtail@0.1 + asymmetric@0.4"))
    assert noise_class("sequence").misfit(ten, identity) == "ten has no map of confusable classes"


# --- open sets


def test_open_set_counts() -> None:
    result = noisy({"kind": "open-set", "rate": 0.4, "open": 0.75}, balanced(1_000))
    assert (result.true == -1).sum() == 300
    closed = (result.labels != np.arange(1_000) % 10).sum()
    assert closed <= 100 and within_four_sigma(int(closed), 100, 0.9)
    assert result.rate == (300 + closed) / 1_000 and result.expected == pytest.approx(0.4 * (0.75 + 0.25 * 0.9))
    assert noise_identity({"kind": "open-set"})["revision"]  # of the other data set: its pictures are part of the cell


def test_open_sets_that_do_not_fit() -> None:
    with pytest.raises(FieldError, match="unknown dataset 'cifar101'"):
        plan_noise({"kind": "open-set", "source": "cifar101"})
    with pytest.raises(FieldError, match="has 700 training pictures, 800 are to be replaced"):
        noisy("open-set@0.8", balanced(1_000))
    hundred = SimpleNamespace(slug="cifar100", num_classes=100, confusable=True)
    assert "from cifar100 itself" in str(noise_class("open-set").misfit(hundred, noise_identity({"kind": "open-set"})))


HUMAN = [name for name in datasets() if name.startswith(("cifar10n-", "cifar100n-"))]


@pytest.mark.parametrize("name", [*HUMAN, "web-digits"])
def test_open_sets_do_not_come_from_the_same_pictures(name: str) -> None:
    same = {"cifar10n": "cifar10", "cifar100n": "cifar100"}.get(name.partition("-")[0], "digits")
    other = "cifar100" if same == "cifar10" else "cifar10"
    for one, source in ((name, same), (same, name), (name, name)):
        identity = noise_identity({"kind": "open-set", "source": source})
        assert noise_class("open-set").misfit(datasets()[one], identity), (one, source)
        for closed in ({"open": 0.0}, {"source": other}):  # no pictures come in, or those of another set
            fits = noise_identity({"kind": "open-set", "source": same if one == name else name, **closed})
            assert noise_class("open-set").misfit(datasets()[one], fits) is None or one == source


# --- part-dependent instance noise


def test_truncated_normal() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    for mean, std in ((0.0, 0.1), (0.1, 0.1), (0.4, 0.1), (1.0, 0.3), (0.5, 1.0)):
        drawn = truncated_normal(mean, std, 40_000, rng)
        assert drawn.min() >= 0 and drawn.max() <= 1
        assert abs(drawn.mean() - truncated_mean(mean, std)) < 4 * drawn.std() / 200
    assert truncated_mean(0.1, 0.1) == pytest.approx(0.1288, abs=1e-4)  # half a normal tail is cut off
    assert (truncated_normal(0.3, 0.0, 5, rng) == 0.3).all()


@pytest.mark.parametrize("scale", ["raw", "unit", "normalised"])
def test_part_dependent_noise_is_the_formula(scale: str) -> None:
    """Each flipped label is the one that a plain reading of the four steps gives from the same random numbers."""
    data = balanced(300, 3, statistics=lambda: ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3)))
    kind = noise_class("instance-ptd")(rate=0.6, input=scale)
    result = kind.apply(data, np.random.Generator(np.random.PCG64(4)))
    rng = np.random.Generator(np.random.PCG64(4))
    coin = rng.random(300)
    flips = coin < truncated_normal(0.6, 0.1, 300, rng)
    uniform = rng.random(300)
    matrices = [np.round(rng.standard_normal((48, 3)) * 2**20) / 2**20 for _ in range(3)]
    for i, label in enumerate(data.labels):
        x = data.pixels(np.array([i]))[0].astype(float)  # type: ignore[misc]
        if scale != "raw":
            x /= 255
        if scale == "normalised":
            x = (x - np.array([0.5, 0.4, 0.3])[:, None, None]) / np.array([0.25, 0.2, 0.3])[:, None, None]
        logits = x.reshape(-1) @ matrices[label]
        logits[label] = -np.inf
        p = np.exp(logits - logits.max())
        expected = int((uniform[i] >= (p / p.sum()).cumsum() / (p / p.sum()).sum()).sum()) if flips[i] else label
        assert result[i] == expected, i


def test_part_dependent_noise_depends_on_the_picture_alone() -> None:
    """Samples of one class with the same picture have the same target distribution, others another."""
    count = 4_000
    two = pictures(2)
    data = balanced(count, 4, pixels=lambda index: two[(index // 4) % 2])
    result = noisy({"kind": "instance-ptd", "rate": 1.0, "touched": "exact", "input": "normalised"}, data)
    shares = []
    for which in (0, 1):
        of = (data.labels == 0) & ((np.arange(count) // 4) % 2 == which)
        shares.append(np.bincount(result.labels[of], minlength=4) / of.sum())
    assert shares[0][0] == shares[1][0] == 0 and np.abs(shares[0] - shares[1]).max() > 0.2


def test_images_are_needed_where_they_are_looked_at() -> None:
    with pytest.raises(FieldError, match="instance-ptd noise looks at the images"):
        noisy("instance-ptd@0.3", replace(balanced(50), pixels=None))
    with pytest.raises(FieldError, match="input: unit"):
        noisy("instance-ptd@0.3", replace(balanced(50), statistics=None))


# --- data sets, human labels, artefacts


def test_input_from_a_data_set() -> None:
    images, labels = pictures(20), np.arange(20) % 2
    loaded = Loaded(Split(images, labels), Split(images, labels), ("a", "b"), given_labels=1 - labels, pad=2, flip=True)
    data = NoiseInput.of(loaded, "digits", device="cpu")
    assert (data.labels == 1 - labels).all() and (data.truth == labels).all()  # as delivered, and what is true
    assert (data.need_pixels("x")(np.array([3, 1])) == images[[3, 1]]).all() and data.pad == 2 and data.flip
    delivered = draw(noise_identity({"kind": "none"}), data, {"name": "digits"}, 0)
    assert delivered.rate == 1.0 and (delivered.labels == 1 - labels).all() and delivered.expected == 1.0
    assert data.source_size is not None and data.source_size("digits") == 1_442


def test_human_labels_are_those_of_cifar() -> None:
    human = noise_class("human")
    ten, hundred = (SimpleNamespace(slug=slug) for slug in ("cifar10", "cifar100"))
    assert "only for cifar10 and cifar100" in str(human.misfit(SimpleNamespace(slug="digits")))
    assert human.misfit(ten) is None and human.misfit(ten, {"labels": "worse"}) is None
    assert "valid: fine" in str(human.misfit(hundred, {"labels": "worse"}))
    with pytest.raises(FieldError, match="50,000 training images"):
        noisy("human@worse", balanced(100))


@pytest.mark.parametrize("twin", [False, True])
def test_altered_human_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: bool) -> None:
    """A cell knows them by their name alone, so the name has to mean the released vector."""
    from resident_trees import ten_humans, ten_labels, tiny_human

    from bench.data._cifar_n import HUMAN_SETS

    monkeypatch.setitem(HUMAN_SETS, "worse", tiny_human("worse"))
    held, path = ten_humans(), tmp_path / "cifar-n/cifar-n.npz"
    path.parent.mkdir()
    noise = {"kind": "human", "labels": "worse", "twin": twin}
    data = NoiseInput(ten_labels()[0], 10, CIFAR, (), dataset="cifar10", root=tmp_path)
    np.savez(path, **held)
    assert twin or noisy(noise, data).rate == 0.4
    np.savez(path, **{**held, "worse_label": held["aggre_label"]})
    with pytest.raises(FieldError, match=r"'worse_label' is not the released one \(9 labels are wrong, 40 in") as caught:
        noisy(noise, data)
    assert f"{path.parent}: cifar-n.npz: " in str(caught.value) and "`file` noise" in str(caught.value)
    other = plan_noise({"kind": "file", "path": "cifar-n/cifar-n.npz", "key": "worse_label"}, (tmp_path,))
    assert draw(other.identity, replace(data, files=other.files), DATASET, 0).rate == 0.09  # what the message advises


def test_artefacts_keep_what_changes_the_samples(tmp_path: Path) -> None:
    data = balanced(600)
    identity = noise_identity(parse_short("longtail@0.5 + open-set@0.2"))
    result = artefact(identity, data, DATASET, 0, tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path, allow_pickle=False) as file:
        assert (file["keep"] == result.keep).all() and str(file["sha256"]) == result.sha256
        assert result.replaced is not None
        assert (file["replaced"] == np.stack([result.replaced.position, result.replaced.index])).all()
    other = replace(result, keep=result.keep + 1)  # type: ignore[operator]
    assert other.sha256 != result.sha256  # the same labels of other samples are another realisation


@pytest.mark.parametrize(
    "made",
    [
        Corruption(np.zeros(3, dtype=int), keep=np.array([2, 1, 3])),
        Corruption(np.zeros(2, dtype=int), keep=np.array([3, 4])),
        Corruption(np.zeros(2, dtype=int), keep=np.array([1, 2, 3])),
        Corruption(np.zeros(0, dtype=int), keep=np.array([], dtype=int)),
        Corruption(np.zeros(4, dtype=int), replaced=Replaced(np.array([0, 0]), np.array([1, 2]), {})),
        Corruption(np.zeros(4, dtype=int), replaced=Replaced(np.array([4]), np.array([1]), {})),
        Corruption(np.zeros(4, dtype=int), replaced=Replaced(np.array([1, 2]), np.array([1]), {})),
    ],
)
def test_impossible_corruptions_name_the_kind(made: Corruption) -> None:
    with pytest.raises(FieldError, match="broken"):
        checked(made, NoiseInput(np.arange(4) % 2, 2, {}, ()), "broken")


def test_a_plain_kind_needs_only_labels() -> None:
    """The contract of a dropped-in file: `definition` and `apply`."""

    class Plain(NoiseKind):
        slug = "plain"
        short_field = ""

        def definition(self) -> str:
            return "all zero"

        def apply(self, data: NoiseInput, rng: np.random.Generator) -> Labels:
            return np.zeros_like(data.labels)

    made = Plain().corrupt(NoiseInput(np.arange(4) % 2, 2, {}, ()), np.random.Generator(np.random.PCG64(0)))
    assert made.labels.tolist() == [0] * 4 and made.keep is None and made.replaced is None
    assert Plain.misfit(SimpleNamespace(slug="x")) is None and Plain().nominal == 0 and Plain.plan({}, ()).label == "plain"
