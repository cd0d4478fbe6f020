"""What every data set promises, on a miniature of it in its real layout. A new data set needs a line in `BUILDERS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import miniature_trees as files
import numpy as np
import pytest
import resident_trees as resident

from bench.cell import canonical_json
from bench.data import DataError, Dataset, Loaded, Split, datasets
from bench.data import cifar_n as human
from bench.data.digit_twins import TintedDigits, WebDigits
from bench.data.digits import Digits, SpuriousDigits
from bench.data.files import FileImages
from bench.fields import FieldError


def _imagenet(root: Path) -> Dataset:
    files.ilsvrc_validation(root / "imagenet", 3)
    return files.TinyImageNetVal()


#: slug -> writes a miniature below the folder and returns the data set that reads it
BUILDERS: dict[str, Callable[[Path], Dataset]] = {
    "digits": lambda root: Digits(),
    "spurious-digits": lambda root: SpuriousDigits(copies=1),
    "tinted-digits": lambda root: TintedDigits(),
    "web-digits": lambda root: WebDigits(),
    "cifar10": lambda root: resident.cifar10(root)(),
    "cifar100": lambda root: resident.cifar100(root)(),
    "cifar10n-aggre": lambda root: resident.cifar10n(root, human.Cifar10nAggre)(),
    "cifar10n-random1": lambda root: resident.cifar10n(root, human.Cifar10nRandom1)(),
    "cifar10n-random2": lambda root: resident.cifar10n(root, human.Cifar10nRandom2)(),
    "cifar10n-random3": lambda root: resident.cifar10n(root, human.Cifar10nRandom3)(),
    "cifar10n-worse": lambda root: resident.cifar10n(root, human.Cifar10nWorse)(),
    "cifar100n-fine": lambda root: resident.cifar100n(root)(),
    "cifar100n-coarse": lambda root: resident.cifar100n_coarse(root)(),
    "animal10n": lambda root: resident.animal10n(root)(),
    "image-folder": resident.image_folder,
    "waterbirds": lambda root: files.waterbirds(root)(),
    "celeba": lambda root: files.celeba(root)(),
    "clothing1m": lambda root: files.clothing1m(root)(),
    "webvision": lambda root: (files.webvision(root), files.TinyWebVision())[1],
    "webvision50": lambda root: files.webvision(root)(),
    "imagenet-val": _imagenet,
}
SLUGS = sorted(datasets())
LOADABLE = [slug for slug in SLUGS if not getattr(datasets()[slug], "evaluation_only", False)]
#: their classes are those of the files
OPEN = {"image-folder"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Dataset, Path]]:
    made: dict[str, tuple[Dataset, Path]] = {}

    def build(slug: str) -> tuple[Dataset, Path]:
        if slug not in made:
            root = tmp_path_factory.mktemp(slug)
            made[slug] = (BUILDERS[slug](root), root)
        return made[slug]

    return build


def splits(data: Loaded) -> Iterator[tuple[str, Split]]:
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test), ("test2", data.test2)):
        if split is not None:
            yield name, split


def test_notes_may_be_a_function_that_is_called_once() -> None:
    split, calls = Split(np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 1])), []
    data = Loaded(split, split, ("a", "b"), notes=lambda: (calls.append(1), ("odd",))[1], canonical=lambda: False)  # type: ignore
    assert calls == [] and data.notes == data.notes == ("odd",) and calls == [1] and data.canonical is False
    assert Loaded(split, split, ("a", "b")).canonical is True and Loaded(split, split, ("a", "b")).notes == ()


def test_every_data_set_has_a_miniature() -> None:
    assert sorted(BUILDERS) == SLUGS, "add a builder for each new data set, remove those of data sets that are gone"


@pytest.mark.parametrize("slug", SLUGS)
def test_metadata_is_complete_without_files(slug: str) -> None:
    cls = datasets()[slug]
    assert cls.slug == slug and cls.title and cls.revision and isinstance(cls.revision, str)
    assert 10 < len(cls.summary) < 130 and "\n" not in cls.summary + cls.layout and cls.__doc__
    assert cls.embedded or cls.layout
    assert cls.num_classes >= 2 or slug in OPEN
    for source, target in cls.confusions.items():
        assert source != target and {source, target} <= set(range(cls.num_classes))
    if cls.confusions:
        assert cls.confusable
    assert len(cls.superclasses) in (0, cls.num_classes)


@pytest.mark.parametrize("slug", SLUGS)
def test_identity_is_json_without_paths(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    cls = type(dataset)
    given = {name: getattr(dataset, name) for name in cls.fields()}
    identity = cls.identity(given)
    assert str(root) not in canonical_json(identity) and cls.identity(identity) == identity
    with pytest.raises(FieldError, match="has no field 'colour'"):
        cls(colour="red")


@pytest.mark.parametrize("slug", LOADABLE)
def test_arrays_and_ranges(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    data = dataset.load(root)
    classes = data.num_classes
    assert classes == (type(dataset).num_classes or classes) and len(set(data.class_names)) == classes
    assert (data.group_names is not None) == (dataset.grouped or (slug in OPEN and data.train.groups is not None))
    assert data.true_labels_known == dataset.truth_known or slug in OPEN
    for name, split in splits(data):
        images = split.images
        assert len(split) == len(images) > 0, name
        assert split.labels.dtype == np.int64 and split.labels.shape == (len(split),)
        assert split.labels.min() >= 0 and split.labels.max() < classes
        assert (split.groups is None) == (data.group_names is None) or name == "test2"
        if split.groups is not None:
            assert split.groups.dtype == np.int64 and split.groups.shape == (len(split),)
            assert split.groups.min() >= 0 and split.groups.max() < len(data.group_names or ())
        if split.resident:
            assert images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] in (1, 3) and images.std() > 0
        else:
            assert isinstance(images, FileImages)
            pixels = images.fetch(np.array([len(images) - 1, 0]))
            assert pixels.dtype == np.uint8 and pixels.shape == (2, *images.shape) and pixels.std() > 0
        assert images.shape[-3:] == data.train.images.shape[-3:]
    if data.given_labels is not None:
        assert data.given_labels.dtype == np.int64 and data.given_labels.shape == data.train.labels.shape
        assert data.given_labels.min() >= 0 and data.given_labels.max() < classes
    assert data.true_labels_known or data.given_labels is None


@pytest.mark.parametrize("slug", LOADABLE)
def test_preprocessing_is_complete(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    data = dataset.load(root)
    mean, std = data.channel_statistics  # without reading a large data set: fixed where images are in files
    assert len(mean) == len(std) == data.train.images.shape[-3] and min(std) > 0
    assert data.pad >= 0 and all(1 <= k <= data.num_classes or k == 5 for k in data.top_k) and data.top_k[0] == 1
    assert (data.test2 is None) == (data.test2_name is None)
    for source, target in data.confusions.items():
        assert source != target and {source, target} <= set(range(data.num_classes))
    if dataset.confusions:
        assert data.confusions == dataset.confusions
    assert bool(data.confusions) == dataset.confusable
    if data.superclasses is not None:
        assert data.superclasses == dataset.superclasses and data.coarse_labels is not None
        assert (np.array(data.superclasses)[data.train.labels] == data.coarse_labels).all()


@pytest.mark.parametrize("slug", LOADABLE)
def test_splits_do_not_overlap(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    seen: list[bytes] = []
    for _, split in splits(dataset.load(root)):
        if split.resident:
            seen += [image.tobytes() for image in split.images]
        else:
            seen += [split.images.path(i).encode() for i in range(len(split))]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("slug", LOADABLE)
def test_loading_is_repeatable_and_writes_nothing(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    before = sorted(path for path in root.rglob("*"))
    first, again = dataset.load(root), dataset.load(root)
    assert first.fingerprint == again.fingerprint and len(first.fingerprint) == 64
    assert first.notes == again.notes and all(str(root) not in note for note in first.notes)
    assert isinstance(first.canonical, bool) and first.canonical == again.canonical
    assert sorted(path for path in root.rglob("*")) == before


@pytest.mark.parametrize("slug", SLUGS)
def test_check_says_what_is_there(slug: str, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, root = built(slug)
    findings = dataset.check(root)
    assert findings and all(finding.ok for finding in findings), [finding.text for finding in findings if not finding.ok]
    text = "\n".join(finding.text for finding in findings)
    json.dumps([finding.facts for finding in findings], allow_nan=False)
    if slug in LOADABLE:
        data = dataset.load(root)
        assert data.fingerprint in text
        for name, split in splits(data):
            assert f"{data.test2_name if name == 'test2' else name}: {len(split):,} images" in text


@pytest.mark.parametrize("slug", [slug for slug in SLUGS if not datasets()[slug].embedded])
def test_an_empty_folder_is_a_clear_error(slug: str, tmp_path: Path, built: Callable[[str], tuple[Dataset, Path]]) -> None:
    dataset, _ = built(slug)
    empty = tmp_path / "nothing here"
    for root in (empty, tmp_path):
        with pytest.raises(DataError) as caught:
            dataset.load(root)
        if slug in LOADABLE:
            assert str(root) in str(caught.value) and f"bench data check {slug} --root " in str(caught.value)
        findings = dataset.check(root)
        assert not all(finding.ok for finding in findings) and any(str(root) in finding.text for finding in findings)
    assert list(tmp_path.iterdir()) == []
