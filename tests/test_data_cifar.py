"""CIFAR-10, CIFAR-100 and their human labels: order, classes, checksums, faults; in miniature and on the real files."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resident_trees import (
    batch,
    cifar10,
    cifar10n,
    cifar100,
    cifar100n,
    cifar100n_coarse,
    hundred_humans,
    hundred_labels,
    label_hash,
    pixels,
    py2,
    shared,
    ten_humans,
    ten_labels,
    tiny_human,
    unpacked_cifar10,
)

from bench.data import DataError, Loaded, data_root, datasets, load, tools
from bench.data import cifar_n as cifar_n_module
from bench.data._cifar_n import HUMAN_SETS, find_labels, human_labels
from bench.data._cifar_tables import FINE_NAMES, SUPERCLASSES, superclass_confusions
from bench.data.cifar import Cifar10, Cifar100
from bench.fields import FieldError

HUMAN = [name for name in datasets() if name.startswith(("cifar10n-", "cifar100n-"))]


def rewrite(path: Path, **changes: Any) -> None:
    """Save a batch again with some entries replaced."""
    held = {key.decode(): value for key, value in pickle.loads(path.read_bytes(), encoding="bytes").items()}
    texts = {key: value.decode() if isinstance(value, bytes) else value for key, value in held.items()}
    texts["filenames"] = [name.decode() for name in held["filenames"]]
    path.write_bytes(py2({**texts, **changes}))


# --- what is delivered


def test_cifar10_is_in_the_order_of_the_batches(tmp_path: Path) -> None:
    data = cifar10(tmp_path)().load(tmp_path)
    train, test = ten_labels()
    assert data.train.labels.tolist() == train.tolist() and data.test.labels.tolist() == test.tolist()
    expected = np.concatenate([pixels(20, 10 + i) for i in range(5)]).reshape(100, 3, 32, 32)
    assert (data.train.images == expected).all() and (data.test.images == pixels(20, 20).reshape(20, 3, 32, 32)).all()
    assert data.train.images.dtype == np.uint8 and data.train.labels.dtype == np.int64
    assert np.shares_memory(data.train.images, data.train.images.base) and data.train.images.base is data.test.images.base
    assert data.class_names[:4] == ("airplane", "automobile", "bird", "cat") and data.class_names[9] == "truck"
    assert data.confusions == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3} and data.given_labels is None and data.val is None


def test_planes_are_red_green_blue(tmp_path: Path) -> None:
    """A row holds the whole red plane first, row by row."""
    cls = cifar10(tmp_path)
    row = np.concatenate([np.full(1024, 10), np.full(1024, 20), np.arange(1024) % 256]).astype(np.uint8)
    rewrite(tmp_path / "cifar-10-batches-py/test_batch", data=np.repeat(row[None], 20, axis=0))
    image = cls().load(tmp_path).test.images[0]
    assert (image[0] == 10).all() and (image[1] == 20).all() and image[2, 0, :3].tolist() == [0, 1, 2] and image[2, 1, 0] == 32


def test_cifar100_takes_superclasses_from_its_own_coarse_labels(tmp_path: Path) -> None:
    data = cifar100(tmp_path)().load(tmp_path)
    assert data.train.labels.tolist() == hundred_labels()[0].tolist()
    assert data.superclasses == SUPERCLASSES and data.coarse_labels is not None
    assert (data.coarse_labels == np.array(SUPERCLASSES)[data.train.labels]).all() and len(data.coarse_labels) == 200
    # aquatic mammals: beaver, dolphin, otter, seal, whale
    cycle = [FINE_NAMES.index(name) for name in ("beaver", "dolphin", "otter", "seal", "whale")]
    assert cycle == [4, 30, 55, 72, 95]
    assert [data.confusions[c] for c in cycle] == [30, 55, 72, 95, 4]
    assert sorted(data.confusions) == sorted(data.confusions.values()) == list(range(100))
    assert data.confusions == Cifar100.confusions


def test_consecutive_ids_are_no_superclass() -> None:
    assert np.bincount(SUPERCLASSES).tolist() == [5] * 20
    blocks = {c: c - c % 5 + (c + 1) % 5 for c in range(100)}
    inside = [c for c, other in blocks.items() if SUPERCLASSES[c] == SUPERCLASSES[other]]
    assert inside == [6, 19, 42, 63, 86, 89]  # the card's six arrows


def test_superclass_confusions_by_hand() -> None:
    assert superclass_confusions((0, 1, 0, 2, 1, 0)) == {0: 2, 2: 5, 5: 0, 1: 4, 4: 1}


@pytest.mark.parametrize(
    ("params", "std", "pad"),
    [
        ({}, (0.2023, 0.1994, 0.2010), 4),
        ({"normalisation": "per-pixel-std"}, (0.2470, 0.2435, 0.2616), 4),
        ({"normalisation": "none", "augmentation": "none"}, (1, 1, 1), 0),
    ],
)
def test_cifar10_preprocessing(tmp_path: Path, params: dict[str, Any], std: tuple[float, ...], pad: int) -> None:
    data = cifar10(tmp_path)(**params).load(tmp_path)
    assert data.channel_statistics[1] == std and (data.pad, data.flip) == (pad, pad == 4)


def test_preprocessing_of_the_others(tmp_path: Path) -> None:
    assert cifar100(tmp_path)().load(tmp_path).channel_statistics == ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276))
    fine = cifar100n(tmp_path)().load(tmp_path)
    assert fine.channel_statistics == ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)) and fine.pad == 4 and fine.flip
    assert cifar10n(tmp_path)().load(tmp_path).channel_statistics[1] == (0.2023, 0.1994, 0.2010)


def test_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "here"))
    assert data_root() == tmp_path / "here" and data_root(tmp_path) == tmp_path
    cls = cifar10(tmp_path / "here")
    assert len(cls().load(None).train) == 100
    assert len(cls().load(tmp_path / "here" / "cifar-10-batches-py").train) == 100  # the folder itself will do
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        load({"name": "cifar10"}, tmp_path / "elsewhere")


# --- canonical or not


@pytest.mark.parametrize("build", [cifar10, cifar100])
def test_official_files_are_canonical(tmp_path: Path, build: Any) -> None:
    data = build(tmp_path)().load(tmp_path)
    assert data.canonical is True and data.notes == ()


def test_other_pixels_are_marked(tmp_path: Path) -> None:
    cls = cifar10(tmp_path)
    before = cls().load(tmp_path).fingerprint
    rewrite(tmp_path / "cifar-10-batches-py/data_batch_3", data=pixels(20, 99))
    data = cls().load(tmp_path)
    assert data.canonical is False and data.fingerprint != before
    assert data.notes[0].startswith("non-canonical pixels: md5 differs for data_batch_3; labels and order of train and test")


def test_another_order_is_marked_as_such(tmp_path: Path) -> None:
    cls = cifar10(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    first, second = folder / "data_batch_1", folder / "data_batch_2"
    first.rename(folder / "x"), second.rename(first), (folder / "x").rename(second)
    data = cls().load(tmp_path)
    assert not data.canonical and "non-canonical labels or order in train" in data.notes[0]


def test_other_class_list_files_are_marked(tmp_path: Path) -> None:
    cls = cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py/batches.meta"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes(), encoding="bytes")))
    data = cls().load(tmp_path)
    words = "non-canonical batches.meta: md5 differs; the class names in it are the official ones"
    assert not data.canonical and data.notes == (words,)


def test_checksums_wait_until_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = cifar10n(tmp_path)
    asked = []
    monkeypatch.setattr(cls, "_deviations", lambda *_: asked.append(1) or ("odd",))
    data = cls().load(tmp_path)
    assert not asked
    assert data.notes == ("odd",) and data.canonical is False and data.notes == ("odd",) and asked == [1]


def test_the_real_checks_are_the_published_ones() -> None:
    """The miniature overrides them; this is what everyone else gets."""
    assert [file.md5[:4] for file in Cifar10._train_files] == ["c99c", "d4bb", "54eb", "634d", "482c"]
    assert [file.rows for file in (*Cifar10._train_files, Cifar10._test_file)] == [10_000] * 6
    assert Cifar10._per_class == (5000, 1000) and Cifar100._per_class == (500, 100)
    assert Cifar100._train_files[0].md5 == "16019d7e3df5f24257cddd939b257f8d" and Cifar100._test_file.md5[:6] == "f0ef6b"


# --- faults


def ten_faults(folder: Path) -> dict[str, tuple[Any, str]]:
    """name: (what breaks the files of the miniature, what the message says)."""
    train = ten_labels()[0][20:40].tolist()
    file, test, meta = folder / "data_batch_2", folder / "test_batch", folder / "batches.meta"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "truck", "ship"]
    return {
        "missing batch": (file.unlink, "data_batch_2: the file is missing"),
        "missing meta": (meta.unlink, "batches.meta: the file is missing"),
        "missing test": (test.unlink, "test_batch: the file is missing"),
        "truncated": (lambda: file.write_bytes(file.read_bytes()[:-1000]), "data_batch_2: .*truncated"),
        "empty": (lambda: file.write_bytes(b""), "data_batch_2: .*truncated"),
        "html": (lambda: file.write_bytes(b"<html>404</html>"), "data_batch_2: .*damaged"),
        "longer": (lambda: file.write_bytes(file.read_bytes() + b"xx"), "data_batch_2: 2 bytes follow its end"),
        "mis-sized": (lambda: rewrite(file, data=pixels(19, 1)), r"data_batch_2: 'data' is uint8 of shape \(19, 3072\)"),
        "few labels": (lambda: rewrite(file, labels=train[:-1]), "data_batch_2: 'labels' has 19 entries, not 20"),
        "out of range": (lambda: rewrite(file, labels=[10, *train[1:]]), "data_batch_2: 'labels' is 10 for image 0, out of 0 t"),
        "negative": (lambda: rewrite(file, labels=[*train[:-1], -1]), "data_batch_2: 'labels' is -1 for image 19"),
        "text": (lambda: rewrite(file, labels=["cat", *train[1:]]), "data_batch_2: 'labels' is no list of whole numbers"),
        "one label": (lambda: rewrite(file, labels=[(train[0] + 1) % 10, *train[1:]]), "training images of .*, officially 10"),
        "class order": (
            lambda: meta.write_bytes(py2({"label_names": names})), "batches.meta: 'label_names' is not the official list",
        ),
        "extra": (lambda: shutil.copy(file, folder / "data_batch_6"), "data_batch_6: the file is not part of the data set"),
        "hostile": (lambda: file.write_bytes(b"cos\nsystem\n(S'true'\ntR."), "data_batch_2: the file wants to build os.system"),
    }  # fmt: skip


@pytest.mark.parametrize("fault", sorted(ten_faults(Path("x"))))
def test_faults_of_cifar10_are_named(tmp_path: Path, fault: str) -> None:
    cls = cifar10(tmp_path)
    break_it, words = ten_faults(tmp_path / "cifar-10-batches-py")[fault]
    break_it()
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)
    report = cls().check(tmp_path)
    assert not all(finding.ok for finding in report)


@pytest.mark.parametrize(
    ("coarse", "words"),
    [
        (lambda c, fine: [20, *c[1:]], "train: 'coarse_labels' is 20 for image 0, out of 0 to 19"),
        (lambda c, fine: [(c[0] + 1) % 20, *c[1:]], "and another elsewhere"),
        (lambda c, fine: [{4: 7, 7: 4}.get(x, x) for x in c], "superclass .* for .*, officially"),
    ],
)
def test_faults_of_coarse_labels_are_named(tmp_path: Path, coarse: Any, words: str) -> None:
    cls = cifar100(tmp_path)
    for name in ("train", "test"):
        path = tmp_path / "cifar-100-python" / name
        held = pickle.loads(path.read_bytes(), encoding="bytes")
        if name == "train" or words.startswith("superclass"):
            rewrite(path, coarse_labels=coarse(held[b"coarse_labels"], held[b"fine_labels"]), batch_label="x")
    with pytest.raises(DataError, match=words):
        cls().load(tmp_path)


def test_an_archive_that_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"CIFAR-10 is missing \(unpack .*10-python.tar.gz\); see: bench data check cifar10"):
        Cifar10().load(tmp_path)


def test_errors_name_the_command_that_examines_the_data_set(tmp_path: Path) -> None:
    cifar10(tmp_path)
    with pytest.raises(DataError, match="data_batch_1: .*; see: bench data check cifar10n-worse --root DIR$"):
        load({"name": "cifar10n-worse"}, tmp_path)


def test_the_real_class_refuses_the_miniature(tmp_path: Path) -> None:
    cifar10(tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1: 'data' is uint8 of shape \(20, 3072\)"):
        Cifar10().load(tmp_path)


# --- human labels


@pytest.mark.parametrize("name", HUMAN)
def test_human_sets_in_miniature(tmp_path: Path, name: str) -> None:
    base = datasets()[name]
    build = cifar10n if name.startswith("cifar10n") else cifar100n
    cls = build(tmp_path, base)
    data = cls().load(tmp_path)
    held = ten_humans() if build is cifar10n else hundred_humans()
    human = HUMAN_SETS[name.partition("-")[2]]
    assert data.given_labels is not None and data.given_labels.tolist() == list(held[human.keys[0]])
    assert data.train.labels.tolist() == list(held[human.clean_keys[0]])  # the true ones
    assert data.canonical and data.true_labels_known
    texts = [finding.text for finding in cls().check(tmp_path)]
    assert any(f"given labels: {tiny_human(human.name).wrong} of" in text for text in texts)


def test_human_labels_change_the_fingerprint(tmp_path: Path) -> None:
    plain, worse = cifar10(tmp_path)().load(tmp_path), cifar10n(tmp_path)().load(tmp_path)
    aggre = cifar10n(tmp_path, cifar_n_module.Cifar10nAggre)().load(tmp_path)
    assert len({plain.fingerprint, worse.fingerprint, aggre.fingerprint}) == 3


def test_coarse_is_a_task_of_twenty_classes(tmp_path: Path) -> None:
    data = cifar100n_coarse(tmp_path)().load(tmp_path)
    table = np.array(SUPERCLASSES)
    train, test = hundred_labels()
    assert data.num_classes == 20 and data.class_names[0] == "aquatic_mammals"
    assert (data.train.labels == table[train]).all() and (data.test.labels == table[test]).all()
    assert data.confusions == {} and data.superclasses is None and data.coarse_labels is None
    assert data.canonical and data.notes == ()


@pytest.mark.parametrize("form", ["pt", "legacy pt", "npz", "npy", "ordered npy"])
def test_all_forms_of_the_label_files(tmp_path: Path, form: str) -> None:
    human, held = tiny_human("worse"), ten_humans()
    folder = tmp_path / "cifar-n"
    cifar10n(tmp_path)
    (folder / "CIFAR-10_human.pt").unlink()
    order = np.random.Generator(np.random.PCG64(5)).permutation(100)
    if form.endswith("pt"):
        from resident_trees import human_file

        human_file(tmp_path, legacy=form.startswith("legacy"))
    elif form == "npz":
        np.savez(folder / "cifar-n.npz", **{f"cifar10_{key}": values.astype(np.uint8) for key, values in held.items()})
    elif form == "npy":
        np.save(folder / "CIFAR-10_human.npy", np.array(held, dtype=object), allow_pickle=True)
    else:
        # entry i of the order file is the index, in python-batch order, of the i-th picture of TensorFlow Datasets
        shuffled = {key: values[order] for key, values in held.items()}
        np.save(folder / "CIFAR-10_human_ordered.npy", np.array(shuffled, dtype=object), allow_pickle=True)
        np.save(folder / "image_order_c10.npy", order)
    found = human_labels(human, ten_labels()[0], tmp_path)
    assert found.labels.tolist() == held["worse_label"].tolist() and found.labels.dtype == np.int64
    assert (found.wrong, found.rate, found.canonical, found.notes) == (40, 0.4, True, ())


@pytest.mark.parametrize("name", HUMAN_SETS)
def test_one_archive_of_both_data_sets_will_do(tmp_path: Path, name: str) -> None:
    human = tiny_human(name)
    both = {"cifar10": ten_humans(), "cifar100": hundred_humans()}
    (tmp_path / "cifar-n").mkdir()
    held = {f"{base}_{key}": np.asarray(values) for base, labels in both.items() for key, values in labels.items()}
    np.savez(tmp_path / "cifar-n/cifar-n.npz", **held)
    true = np.asarray(both[human.base][human.clean_keys[0]])
    assert human_labels(human, true, tmp_path).labels.tolist() == list(both[human.base][human.keys[0]])


def test_another_order_is_found_and_explained(tmp_path: Path) -> None:
    human, held = tiny_human("worse"), ten_humans()
    folder = tmp_path / "cifar-n"
    folder.mkdir()
    order = np.roll(np.arange(100), 1)
    shuffled = {key: values[order] for key, values in held.items()}
    clean = held["clean_label"]
    first = int(np.flatnonzero(clean[order] != clean)[0])
    np.save(folder / "CIFAR-10_human.npy", np.array(shuffled, dtype=object), allow_pickle=True)
    words = f"'clean_label' is {clean[order][first]} at index {first}, but that training image is of class {clean[first]}"
    with pytest.raises(DataError, match=f"{words}; .* of 100 differ .*TensorFlow-Datasets order"):
        human_labels(human, clean, tmp_path)
    (folder / "CIFAR-10_human.npy").rename(folder / "CIFAR-10_human_ordered.npy")
    with pytest.raises(DataError, match="use CIFAR-10_human.pt, or put image_order_c10.npy beside it"):
        human_labels(human, clean, tmp_path)
    np.save(folder / "image_order_c10.npy", np.zeros(100, dtype=np.int64))
    with pytest.raises(DataError, match="image_order_c10.npy: the file holds no permutation of 100"):
        human_labels(human, clean, tmp_path)


def test_labels_of_other_images_are_told_apart_from_another_order(tmp_path: Path) -> None:
    cifar10n(tmp_path)
    other = ten_labels()[0].copy()
    other[other == 3] = 4
    with pytest.raises(DataError, match="the labels belong to other images"):
        human_labels(tiny_human("worse"), other, tmp_path)


def test_other_human_labels_are_marked(tmp_path: Path) -> None:
    cls = cifar10n(tmp_path)
    held = ten_humans()
    held["worse_label"] = held["random_label1"]
    np.savez(tmp_path / "cifar-n/cifar-n.npz", **held)
    (tmp_path / "cifar-n/CIFAR-10_human.pt").unlink()
    data = cls().load(tmp_path)
    assert not data.canonical
    assert data.notes == ("cifar-n.npz: 'worse_label' is not the released one (17 labels are wrong, 40 in the release)",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"worse_label": np.full(100, 10)}, "'worse_label' has the label 10 at index 0.*valid: 0 to 9"),
        ({"worse_label": np.arange(99) % 10}, "'worse_label' has 99 labels, not 100"),
        ({"worse_label": np.full((10, 10), 1)}, "no vector of whole numbers"),
        ({"worse_label": np.full(100, 1.0)}, "no vector of whole numbers"),
        ({"clean_label": np.full(100, -1)}, "'clean_label' has the label -1"),
        ({"worse_label": None}, "there is no 'worse_label'.*it has aggre_label"),
    ],
)
def test_faults_of_label_files_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    held = {key: value for key, value in {**ten_humans(), **change}.items() if value is not None}
    (tmp_path / "cifar-n").mkdir()
    np.savez(tmp_path / "cifar-n/cifar-n.npz", **held)
    with pytest.raises(DataError, match="cifar-n.npz: .*" + words):
        human_labels(tiny_human("worse"), ten_labels()[0], tmp_path)


def test_damaged_and_missing_label_files(tmp_path: Path) -> None:
    human, clean = tiny_human("worse"), ten_labels()[0]
    with pytest.raises(DataError, match=r"cifar-n/CIFAR-10_human.pt: the human labels are missing \(from github.com/UCSC-REAL"):
        human_labels(human, clean, tmp_path)
    for name in ("CIFAR-10_human_ordered.npy", "CIFAR-10_human.npy", "cifar-n.npz", "CIFAR-10_human.pt"):
        path = tmp_path / name  # the data folder itself will do
        path.write_bytes(b"PK\x03\x04 is how it begins")
        assert find_labels(human, tmp_path) == path
        with pytest.raises(DataError, match=f"{name}: "):
            human_labels(human, clean, tmp_path)
    (tmp_path / "CIFAR-10_human.pt").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(DataError, match="holds no dict of label arrays"):
        human_labels(human, clean, tmp_path)


# --- the real files


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = unpacked_cifar10(tmp_path_factory.mktemp("cifar10"))
    (root / "cifar-n").symlink_to(shared("cifar-n"))
    return root


@pytest.fixture(scope="module")
def real_data(real: Path) -> Loaded:
    return Cifar10().load(real)


def test_check_of_the_real_images(real: Path) -> None:
    report = tools.check("cifar10", real)
    text, facts = report.as_text(), json.loads(json.dumps(report.as_json()))
    assert report.ok and facts["ok"] and not facts["canonical"]
    assert "non-canonical pixels" in text and "batches.meta: 158 bytes, md5 official" in text
    assert facts["splits"]["train"]["images"] == 50_000 and facts["splits"]["test"]["images"] == 10_000
    assert set(facts["splits"]["train"]["classes"].values()) == {5_000} and len(facts["splits"]["train"]["classes"]) == 10
    assert set(facts["splits"]["test"]["classes"].values()) == {1_000}
    assert len(facts["fingerprint"]) == 64 and facts["fingerprint"] in text


def test_real_images_are_in_order(real_data: Loaded) -> None:
    assert real_data.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    assert real_data.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert (real_data.train.labels[:10_000] == 1).sum() == 974
    assert real_data.notes[0].endswith("labels and order of train and test are the official ones")
    mean = real_data.train.images.reshape(50_000, 3, -1).mean(axis=(0, 2)) / 255
    assert mean == pytest.approx((0.4913, 0.4821, 0.4465), abs=1e-3)  # red, green, blue


@pytest.mark.parametrize(
    ("name", "wrong"), [("aggre", 4505), ("random1", 8617), ("random2", 9061), ("random3", 8820), ("worse", 20104)]
)
def test_real_rates_of_cifar10n(real: Path, real_data: Loaded, name: str, wrong: int) -> None:
    found = human_labels(HUMAN_SETS[name], real_data.train.labels, real)
    assert (found.wrong, found.canonical, found.notes) == (wrong, True, ())
    assert len(found.labels) == 50_000 and found.rate == wrong / 50_000
    npz = np.load(shared("cifar-n/cifar-n.npz"))
    assert (npz[f"cifar10_{HUMAN_SETS[name].keys[0]}"] == found.labels).all()


@pytest.mark.parametrize(("name", "wrong", "key"), [("fine", 20100, "clean_label"), ("coarse", 13202, "clean_coarse_label")])
def test_real_rates_of_cifar100n(name: str, wrong: int, key: str) -> None:
    npz = np.load(shared("cifar-n/cifar-n.npz"))
    clean = npz[f"cifar100_{key}"].astype(np.int64)
    found = human_labels(HUMAN_SETS[name], clean, shared("cifar-n"))
    assert (found.wrong, found.canonical, found.labels.max()) == (wrong, True, 99 if name == "fine" else 19)
    if name == "fine":
        assert label_hash(clean) == Cifar100._label_hashes["train"]
        assert clean[:10].tolist() == [19, 29, 0, 11, 1, 86, 90, 28, 23, 31]
        assert (np.array(SUPERCLASSES)[clean] == npz["cifar100_clean_coarse_label"]).all()


def test_a_real_data_set_of_human_labels(real: Path) -> None:
    report = tools.check("cifar10n-worse", real)
    assert report.ok and report.as_json()["given"]["wrong"] == 20_104
    assert "given labels: 20,104 of 50,000 are wrong, 40.21%" in report.as_text()
    assert "official: 20,104 of 50,000 given labels are wrong, 40.21%" in report.as_text()


def test_the_real_order_of_tensorflow_datasets(tmp_path: Path) -> None:
    """The authors' other release, made from the shared files: refused without its order file, right with it."""
    npz = np.load(shared("cifar-n/cifar-n.npz"))
    order, clean = npz["tfds_order_cifar10"].astype(np.int64), npz["cifar10_clean_label"].astype(np.int64)
    worse = npz["cifar10_worse_label"].astype(np.int64)
    ordered = {"clean_label": clean[order], "worse_label": worse[order]}
    np.save(tmp_path / "CIFAR-10_human_ordered.npy", np.array(ordered, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="'clean_label' is .* at index .* of 50,000 differ .it is in TensorFlow-Datasets order"):
        human_labels(HUMAN_SETS["worse"], clean, tmp_path)
    np.save(tmp_path / "image_order_c10.npy", order)
    assert (human_labels(HUMAN_SETS["worse"], clean, tmp_path).labels == worse).all()


# --- check and get


def test_check_of_an_empty_folder(tmp_path: Path) -> None:
    report = tools.check("cifar10", tmp_path)
    assert not report.ok and "!!  " in report.as_text()
    assert f"expected below {tmp_path}: cifar-10-batches-py/" in report.as_text()
    assert f"bench data get cifar10 --root {tmp_path}" in report.as_text() and "cifar-10-python.tar.gz" in report.as_text()
    assert f"bench data get cifar100 --root {tmp_path}" in tools.check("cifar100n-fine", tmp_path).as_text()


def test_check_lists_files_that_are_not_used(tmp_path: Path) -> None:
    texts = [finding.text for finding in cifar10(tmp_path)().check(tmp_path)]
    assert "not used: readme.html" in texts and "official: 100 training and 20 test images, 10 and 2 per class" in texts
    assert texts[-1].endswith("(canonical)")


def test_check_of_an_embedded_set() -> None:
    report = tools.check("digits")
    assert report.ok and report.as_text().startswith("Digits (digits), embedded") and report.as_json()["root"] is None


def test_unknown_names_and_options() -> None:
    with pytest.raises(FieldError, match="did you mean cifar10"):
        tools.check("cifar-10")
    with pytest.raises(FieldError, match="normalisation"):
        tools.check("cifar10", params={"normalisation": "other"})


def test_get_is_for_cifar_only(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="celeba is not downloaded; bring the files yourself: .*valid: cifar10, cifar100"):
        tools.get("celeba", tmp_path)
    with pytest.raises(FieldError, match="digits is not downloaded; it is embedded"):
        tools.get("digits", tmp_path)


def test_get_downloads_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    calls = []
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda root, **more: calls.append((root, more)))
    report = tools.get("cifar10", tmp_path / "new")
    assert calls == [(str(tmp_path / "new"), {"train": True, "download": True})] and not report.ok  # it brought nothing

    def fails(root: str, **more: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fails)
    with pytest.raises(DataError, match="the download failed: no network"):
        tools.get("cifar10", tmp_path / "new")


def test_get_does_not_write_over_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_download", lambda *_: pytest.fail("a download"))
    cls = cifar10(tmp_path)
    with pytest.raises(DataError, match="there are files that are not the official ones"):
        tools.get("cifar10", tmp_path)
    monkeypatch.setitem(datasets(), "cifar10", cls)
    assert tools.get("cifar10", tmp_path).ok  # official: kept
    rewrite(tmp_path / "cifar-10-batches-py/test_batch", data=pixels(20, 99))
    assert tools.check("cifar10", tmp_path).ok  # usable, but not what a download would bring
    with pytest.raises(DataError, match="there are files that are not the official ones"):
        tools.get("cifar10", tmp_path)


def test_batches_hold_what_the_tests_think() -> None:
    """The writer of the miniature is right: Python's own unpickler reads the same."""
    held = batch(ten_labels()[0][:20], 10)
    found = pickle.loads(py2(held), encoding="latin1")
    assert found["labels"] == held["labels"] and (found["data"] == held["data"]).all() and found["filenames"] == held["filenames"]



def test_a_suite_trains_on_the_real_images_from_the_command_line(real: Path, tmp_path: Path) -> None:
    """A published vector, human labels and drawn noise in one table, which says that the pixels are not canonical."""
    import subprocess
    import sys

    (real / "noise-labels.npz").symlink_to(shared("noise-labels") / "noise-labels.npz")
    suite = Path(__file__).resolve().parent.parent / "suites" / "cifar10-smoke.yaml"
    command = [str(Path(sys.executable).parent / "bench"), "run", str(suite), "--data", str(real), "--results", str(tmp_path)]
    done = subprocess.run(
        [*command, "--executor", "inline", "--tracking", "none"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "non-canonical data" in done.stdout and "measured 0.451" in done.stdout and "measured 0.402" in done.stdout
    records = [json.loads(path.read_text()) for path in tmp_path.glob("cifar10-smoke/" + "?" * 16 + ".json")]
    assert len(records) == 3 and all(record["metrics"]["test_acc_last"] > 0.25 for record in records)
