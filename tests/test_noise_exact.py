"""bench.noise against what was published: DivideMix's generator, ScanMix's files, CIFAR-N, 72 released label vectors."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.cifar import Cifar10, Cifar100
from bench.noise import Labels, NoiseInput, NoisyLabels, draw, noise_class, plan_noise
from bench.noise.tools import measure_file

SHARED = Path(os.environ.get("BENCH_SHARED") or Path(__file__).resolve().parents[2] / "shared") / "data"

#: seed 123, nominal per cent -> wrong labels; also what PropMix and LongReMix publish
DIVIDEMIX = {
    ("cifar10", 20): 8972, ("cifar10", 50): 22484, ("cifar10", 80): 36036, ("cifar10", 90): 40393,
    ("cifar100", 20): 9890, ("cifar100", 50): 24751, ("cifar100", 80): 39611, ("cifar100", 90): 44539,
}  # fmt: skip

#: wrong labels of each released vector (length 50 000; pmd-plc 45 000), counted from the files
PUBLISHED = {
    "cifar10__scanmix__sym20": 9003, "cifar10__scanmix__sym50": 22527, "cifar10__scanmix__sym80": 36047,
    "cifar10__scanmix__sym90": 40499, "cifar10__scanmix__asym40": 10010, "cifar10__scanmix__asym49": 12260,
    "cifar10__scanmix__semantic-densenet": 15946, "cifar10__scanmix__semantic-resnet": 19023,
    "cifar10__scanmix__semantic-vgg": 15046, "cifar10__tcl__asym40": 10034, "cifar100__tcl__sym20": 9892,
    "cifar100__tcl__sym50": 24732, "cifar100__tcl__sym80": 39610, "cifar100__tcl__sym90": 44531,
    "cifar10__tcl__sym20": 8929, "cifar10__tcl__sym50": 22445, "cifar10__tcl__sym80": 35907, "cifar10__tcl__sym90": 40421,
    "cifar10__rrl__asym40": 10034, "cifar10__rrl__sym20": 8989, "cifar10__rrl__sym50": 22518,
    "cifar10__odnl__symmetric40": 20000, "cifar10__odnl__asymmetric40": 9937, "cifar10__odnl__dependent40": 20000,
    "cifar10__idn__10": 5000, "cifar10__idn__20": 10000, "cifar10__idn__30": 15000, "cifar10__idn__40": 20000,
    "cifar10__pmd-plc__type1-35": 15764, "cifar10__pmd-plc__type1-70": 31705, "cifar10__pmd-plc__type2-35": 15918,
    "cifar10__pmd-plc__type2-70": 31514, "cifar10__pmd-plc__type3-35": 15800, "cifar10__pmd-plc__type3-70": 31620,
    "cifar100__pmd-plc__type1-35": 15866, "cifar100__pmd-plc__type1-70": 31443, "cifar100__pmd-plc__type2-35": 15604,
    "cifar100__pmd-plc__type2-70": 31519, "cifar100__pmd-plc__type3-35": 15957, "cifar100__pmd-plc__type3-70": 31532,
    "cifar10__pmd-selc__type1-35": 17663, "cifar10__pmd-selc__type1-70": 35117, "cifar10__pmd-selc__type2-35": 17280,
    "cifar10__pmd-selc__type2-70": 34830, "cifar10__pmd-selc__type3-35": 17034, "cifar10__pmd-selc__type3-70": 34838,
    "cifar100__pmd-selc__type1-35": 17099, "cifar100__pmd-selc__type1-70": 34492, "cifar100__pmd-selc__type2-35": 16621,
    "cifar100__pmd-selc__type2-70": 34643, "cifar100__pmd-selc__type3-35": 17042, "cifar100__pmd-selc__type3-70": 34286,
    "cifar10__propmix__sym20": 8972, "cifar10__propmix__sym50": 22484, "cifar10__propmix__sym80": 36036,
    "cifar10__propmix__sym90": 40393, "cifar100__propmix__sym20": 9890, "cifar100__propmix__sym50": 24751,
    "cifar100__propmix__sym80": 39611, "cifar100__propmix__sym90": 44539, "cifar100__propmix__asym40": 20094,
    "cifar100__propmix__semantic-densenet": 16929, "cifar100__propmix__semantic-resnet": 18348,
    "cifar100__propmix__semantic-vgg": 18718, "cifar10__distill__feature-dependent15": 7500,
    "cifar10__distill__feature-dependent25": 12500, "cifar10__distill__feature-dependent35": 17500,
    "cifar10__distill__feature-dependent45": 22500, "cifar10__distill__locally-concentrated15": 7445,
    "cifar10__distill__locally-concentrated25": 12419, "cifar10__distill__locally-concentrated35": 17396,
    "cifar10__distill__locally-concentrated45": 22389,
}  # fmt: skip

HUMAN = {"aggre": 4505, "random1": 8617, "random2": 9061, "random3": 8820, "worse": 20104, "fine": 20100}


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs the real files in {path} (set BENCH_SHARED)")
    return path


@pytest.fixture(scope="module")
def truth() -> dict[str, Labels]:
    """CIFAR's own training labels by data set."""
    with np.load(shared("cifar-n/cifar-n.npz"), allow_pickle=False) as archive:
        return {name: archive[f"{name}_clean_label"].astype(np.int64) for name in ("cifar10", "cifar100")}


@pytest.fixture(scope="module")
def released() -> Iterator[Any]:
    with np.load(shared("noise-labels/noise-labels.npz"), allow_pickle=False) as archive:
        yield archive


def given(name: str, labels: Labels, **more: Any) -> NoiseInput:
    cls = Cifar10 if name == "cifar10" else Cifar100
    names = tuple(str(c) for c in range(cls.num_classes))
    return NoiseInput(labels, cls.num_classes, dict(cls.confusions), names, dataset=name, superclasses=cls.superclasses, **more)


def noisy(noise: str | dict[str, Any], data: NoiseInput, seed: int = 0, folders: tuple[Path, ...] = ()) -> NoisyLabels:
    planned = plan_noise(noise, folders)
    data = NoiseInput(**{**data.__dict__, "files": planned.files})
    return draw(planned.identity, data, {"name": data.dataset, "revision": "1"}, seed)


# --- DivideMix's generator


@pytest.mark.parametrize(("name", "percent"), DIVIDEMIX)
def test_dividemix_changes_the_published_labels(name: str, percent: int, truth: Any, released: Any) -> None:
    result = noisy(f"dividemix-seed@{percent / 100}", given(name, truth[name]))
    assert (result.labels != truth[name]).sum() == DIVIDEMIX[name, percent]
    assert (result.labels == released[f"{name}__propmix__sym{percent}"]).all()
    assert result.rate == DIVIDEMIX[name, percent] / 50_000


def test_dividemix_touches_the_published_samples() -> None:
    """No labels decide which samples are touched, so this needs none of the files."""
    touched = {rate: noise_class("dividemix-seed")(rate=rate).touched(50_000) for rate in (0.2, 0.5, 0.8, 0.9)}
    assert touched[0.2][:5].tolist() == [38712, 34233, 25555, 46929, 30485]
    assert [len(chosen) for chosen in touched.values()] == [10_000, 25_000, 40_000, 45_000]
    for less, more in zip(list(touched.values()), list(touched.values())[1:], strict=False):
        assert set(less) < set(more)  # nested
    scanmix = noise_class("dividemix-seed")(rate=0.2, variant="scanmix").touched(50_000)
    assert (scanmix == touched[0.2]).all()


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("variant", ["dividemix", "scanmix"])
def test_the_rule_word_by_word(variant: str, classes: int, rate: float) -> None:
    """The rule as the reference states it, written out sample by sample with the global functions of `random`."""
    true = (np.arange(50_000) * 7 % classes).tolist()
    state = random.getstate()
    try:
        random.seed(123)
        order = list(range(50_000))
        random.shuffle(order)
        if variant == "scanmix":
            random.shuffle(list(range(50_000)))
        chosen = set(order[: int(rate * 50_000)])
        expected = [random.randint(0, classes - 1) if i in chosen else true[i] for i in range(50_000)]
    finally:
        random.setstate(state)
    data = NoiseInput(np.array(true), classes, {}, ())
    result = noisy({"kind": "dividemix-seed", "rate": rate, "variant": variant}, data)
    assert result.labels.tolist() == expected


@pytest.mark.parametrize("percent", [20, 50, 80, 90])
def test_scanmix_symmetric_files_bit_for_bit(percent: int, truth: Any, released: Any) -> None:
    noise = {"kind": "dividemix-seed", "rate": percent / 100, "variant": "scanmix"}
    assert (noisy(noise, given("cifar10", truth["cifar10"])).labels == released[f"cifar10__scanmix__sym{percent}"]).all()


@pytest.mark.parametrize("variant", ["dividemix", "scanmix"])  # no labels are drawn, so the extra shuffle shows in nothing
@pytest.mark.parametrize("percent", [40, 49])
def test_scanmix_asymmetric_files_bit_for_bit(percent: int, variant: str, truth: Any, released: Any) -> None:
    noise = {"kind": "dividemix-seed", "rate": percent / 100, "mode": "asym", "variant": variant}
    assert (noisy(noise, given("cifar10", truth["cifar10"])).labels == released[f"cifar10__scanmix__asym{percent}"]).all()


def test_another_seed_of_the_program_is_another_realisation(truth: Any) -> None:
    data = given("cifar10", truth["cifar10"])
    labels = {seed: noisy({"kind": "dividemix-seed", "rate": 0.2, "seed": seed}, data).labels for seed in (123, 1)}
    assert (labels[123] != labels[1]).any()
    again = noisy("dividemix-seed@0.2", data, seed=5)  # the seed of the cell decides nothing
    assert (again.labels == labels[123]).all()


# --- the released vectors


def test_every_released_vector_is_known(released: Any) -> None:
    assert set(released.files) == set(PUBLISHED)


@pytest.mark.parametrize("key", PUBLISHED)
def test_released_vectors_load_through_file(key: str, truth: Any, released: Any) -> None:
    name = key.split("__")[0]
    short = "pmd-plc" in key
    noise: dict[str, Any] = {"kind": "file", "path": "noise-labels.npz", "key": key}
    noise |= {"extent": "first"} if short else {}
    data = given(name, truth[name])
    result = noisy(noise, data, folders=(Path("nowhere"), SHARED / "noise-labels"))
    assert len(result.labels) == (45_000 if short else 50_000)
    assert (result.labels == released[key]).all()
    assert round(result.rate * len(result.labels)) == PUBLISHED[key]
    assert result.sha256 == hashlib.sha256(released[key].astype("<i8").tobytes()).hexdigest() or short
    assert (result.keep is None) == (not short)
    if short:
        assert result.keep is not None and (result.keep == np.arange(45_000)).all()


def test_identical_releases_have_one_identity() -> None:
    """TCL's and RRL's asym-40 files are the same array: one cell, under two names."""
    folder = (shared("noise-labels"),)
    plans = [plan_noise(f"file@noise-labels.npz#cifar10__{source}__asym40", folder) for source in ("tcl", "rrl")]
    assert plans[0].identity == plans[1].identity
    assert plans[0].label != plans[1].label


def test_the_formats_in_which_they_were_published(truth: Any, released: Any, tmp_path: Path) -> None:
    """The same vector as DivideMix, ScanMix, TCL and IDN write it is the same cell."""
    labels = released["cifar10__scanmix__sym20"]
    listed = [int(label) for label in labels]
    (tmp_path / "0.2_sym.json").write_text(json.dumps(listed))
    scanmix = {"noise_labels": listed, "open_noise": [], "closed_noise": [1, 2]}
    (tmp_path / "0.20.json").write_text(json.dumps(scanmix))
    np.save(tmp_path / "tcl.npy", labels)
    with open(tmp_path / "idn.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["index", "label_noisy"])
        rows.writerows(reversed(list(enumerate(listed))))
    plans = [plan_noise(f"file@{name}", (tmp_path,)) for name in ("0.2_sym.json", "0.20.json", "tcl.npy", "idn.csv")]
    assert all(plan.identity == plans[0].identity for plan in plans)
    assert noisy("file@0.20.json", given("cifar10", truth["cifar10"]), folders=(tmp_path,)).rate == 9003 / 50_000


def test_measure_of_a_released_vector(truth: Any) -> None:
    location = f"{shared('noise-labels/noise-labels.npz')}#cifar10__scanmix__semantic-vgg"
    result = measure_file(location, truth["cifar10"], 10)
    assert result.rate == 0.30092  # not the 34 % that tables print
    assert result.matrix[3, 5] == pytest.approx(0.18, abs=0.005)  # cat to dog


# --- human labels


@pytest.mark.parametrize("labels", HUMAN)
def test_human_labels_from_the_released_file(labels: str, truth: Any) -> None:
    name = "cifar100" if labels == "fine" else "cifar10"
    data = given(name, truth[name], root=shared("cifar-n").parent)
    result = noisy(f"human@{labels}", data)
    assert (result.labels != truth[name]).sum() == HUMAN[labels]
    assert result.nominal == pytest.approx(HUMAN[labels] / 50_000, abs=1e-4)
    path = shared("cifar-n") / ("CIFAR-100_human.pt" if labels == "fine" else "CIFAR-10_human.pt")
    keys = {"aggre": "aggre_label", "worse": "worse_label", "fine": "noisy_label"}
    key = keys.get(labels, labels.replace("random", "random_label"))
    read = noisy({"kind": "file", "path": str(path), "key": key}, data)  # the same vector through the general reader
    assert read.sha256 == result.sha256


def test_a_synthetic_twin_has_the_matrix_and_not_the_labels(truth: Any) -> None:
    data = given("cifar10", truth["cifar10"], root=shared("cifar-n").parent)
    real, twin = noisy("human@worse", data), noisy({"kind": "human", "labels": "worse", "twin": True}, data)
    assert np.abs(real.matrix - twin.matrix).max() < 4 * np.sqrt(0.25 / 5000)
    assert (real.labels != twin.labels).mean() > 0.3


# --- what the reference counted on the real labels


def test_asymmetric_noise_on_cifar100_is_two_noises(truth: Any, released: Any) -> None:
    data = given("cifar100", truth["cifar100"])
    superclass = noise_class("asymmetric")(map="superclass").targets(data)
    assert superclass[[4, 30, 55, 72, 95]].tolist() == [30, 55, 72, 95, 4]  # aquatic mammals
    propmix = released["cifar100__propmix__asym40"].astype(np.int64)
    moved = propmix != truth["cifar100"]
    assert (propmix[moved] == superclass[truth["cifar100"][moved]]).all()
    blocks = noise_class("asymmetric")(map="blocks").targets(data)
    assert blocks[:5].tolist() == [1, 2, 3, 4, 0] and blocks[99] == 95
    groups = np.array(Cifar100.superclasses)
    inside = np.flatnonzero(groups == groups[blocks])
    assert list(zip(inside.tolist(), blocks[inside].tolist(), strict=True)) == [
        (6, 7), (19, 15), (42, 43), (63, 64), (86, 87), (89, 85),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "ratio", "total", "last"),
    [("cifar10", 0.1, 20_431, 500), ("cifar10", 0.01, 12_406, 50), ("cifar100", 0.1, 19_573, 50), ("cifar100", 0.01, 10_847, 5)],
)
def test_long_tails_of_tabasco(name: str, ratio: float, total: int, last: int) -> None:
    """The sizes depend on the class counts alone, which are balanced: no file is needed."""
    classes = 10 if name == "cifar10" else 100
    labels = np.arange(50_000) % classes
    result = noisy(f"longtail@{ratio}", given(name, labels))
    sizes = np.bincount(result.labels, minlength=classes)
    assert len(result.labels) == total == sizes.sum() and sizes[0] == 50_000 // classes and sizes[-1] == last
    assert result.keep is not None and (labels[result.keep] == result.labels).all() and result.rate == 0


@pytest.mark.parametrize(("ratio", "rate", "classes", "expected"), [(0.1, 0.4, 10, 0.36), (0.1, 0.6, 100, 0.594)])
def test_uniform_noise_of_tabasco(ratio: float, rate: float, classes: int, expected: float) -> None:
    data = given("cifar10" if classes == 10 else "cifar100", np.arange(50_000) % classes)
    steps = [f"longtail@{ratio}", {"kind": "symmetric", "rate": rate, "touched": "coin"}]
    result = noisy({"kind": "sequence", "steps": steps}, data)
    assert abs(result.rate - expected) < 4 * np.sqrt(expected * (1 - expected) / len(result.labels))


@pytest.mark.parametrize("seed", range(3))
def test_elrs_walk_over_the_classes(seed: int) -> None:
    """45 000 samples at 40 %: 1 800 birds, deer and trucks; cats 1 800, of which 720 of the 2 520 that move on come back."""
    labels = np.arange(45_000) % 10
    result = noisy({"kind": "asymmetric", "rate": 0.4, "touched": "sequential"}, given("cifar10", labels), seed)
    wrong = np.bincount(labels[result.labels != labels], minlength=10)
    assert wrong[[2, 4, 9]].tolist() == [1800] * 3 and wrong[[0, 1, 6, 7, 8]].sum() == 0
    back = 1800 - wrong[3]  # cats that became dogs and then cats again; a dog that moves becomes a cat
    assert wrong[5] == 2520 - back
    assert abs(back - 720) < 4 * np.sqrt(1800 * 0.4 * 0.6)
    assert result.expected == pytest.approx(0.184)
    assert abs(result.rate - 0.184) < 0.004


def test_sequential_and_simultaneous_maps_agree_without_chains() -> None:
    labels = np.arange(10_000) % 4
    data = NoiseInput(labels, 4, {2: 0, 3: 1}, ())
    rates = [noisy({"kind": "asymmetric", "rate": 0.5, "touched": how}, data).rate for how in ("sequential", "per-class")]
    assert rates == [0.25, 0.25]
