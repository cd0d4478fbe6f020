"""Label vectors from files and back: formats, refusals that name the file, planning without paths, description, export."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.cell import canonical_json
from bench.data import Loaded, Split
from bench.fields import FieldError
from bench.noise import Labels, NoiseInput, NoisyLabels, draw, noise_identity, parse_short, plan_noise, sha256_of
from bench.noise._readers import read_labels
from bench.noise.tools import FORMATS, describe, describe_text, export, file_name, make, matrix_png, measure, measure_file
from bench.plan import Overrides, Plan, make_plan
from bench.suite import load_suite
from bench.yaml_source import SuiteError

LABELS = np.array([0, 2, 1, 1, 0, 2])
TRUE = np.array([0, 2, 1, 0, 0, 1])
NAMES = ("ant", "bee", "cat")


def given(**more: Any) -> NoiseInput:
    return NoiseInput(TRUE, 3, {}, NAMES, **more)


def noisy(noise: Any, folder: Path, data: NoiseInput | None = None) -> NoisyLabels:
    planned = plan_noise(noise, (folder,))
    data = replace(data or given(), files=planned.files)
    return draw(planned.identity, data, {"name": "cifar10", "revision": "1"}, 0)


def written(folder: Path, name: str, content: Any) -> Path:
    """`content` in the format of the suffix, or the bytes themselves."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".json":
        path.write_text(json.dumps(content))
    elif path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    elif path.suffix == ".pt":
        torch.save(content, path)
    else:
        path.write_text(content)
    return path


# --- every format that labels are published in

CSV = "index,label_noisy\n" + "".join(f"{i},{label}\n" for i, label in reversed(list(enumerate(LABELS))))


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("0.5_sym.json", LABELS.tolist(), ""),
        ("0.50.json", {"noise_labels": LABELS.tolist(), "open_noise": [], "closed_noise": [3, 5]}, ""),
        ("other.json", {"mine": LABELS.tolist(), "noise_labels": TRUE.tolist()}, "mine"),
        ("small.npy", LABELS.astype(np.uint8), ""),
        ("big.npy", LABELS.astype(">i4"), ""),
        ("whole.npy", LABELS.astype(np.float64), ""),
        ("one.npz", {"whatever": LABELS}, ""),
        ("usual.npz", {"labels": LABELS, "true_labels": TRUE}, ""),
        ("several.npz", {"a": TRUE, "b": LABELS.astype(np.int16)}, "b"),
        ("numpy.pt", {"clean_label": TRUE, "worse_label": LABELS}, "worse_label"),
        ("lists.pt", {"noisy_label": LABELS.tolist(), "clean": TRUE.tolist()}, ""),
        ("tensor.pt", torch.as_tensor(LABELS), ""),
        ("tensors.pt", {"noisy_labels": torch.as_tensor(LABELS)}, ""),
        ("order.csv", CSV, ""),
        ("column.csv", "file,noisy_label\n" + "".join(f"{i}.png,{x}\n" for i, x in enumerate(LABELS)), "noisy_label"),
        ("bare.csv", "\n".join(map(str, LABELS)), ""),
        ("bare.txt", "\n".join(map(str, LABELS)) + "\n", ""),
    ],
)
def test_formats(tmp_path: Path, name: str, content: Any, key: str) -> None:
    path = written(tmp_path, name, content)
    labels = read_labels(path, key)
    assert labels.tolist() == LABELS.tolist() and labels.dtype == np.int64
    result = noisy({"kind": "file", "path": name, "key": key}, tmp_path)
    assert result.labels.tolist() == LABELS.tolist()
    assert result.rate == 2 / 6 and result.nominal is None and result.sha256 == sha256_of(LABELS)
    short = noisy(f"file@{name}#{key}" if key else f"file@{name}", tmp_path)
    assert short.sha256 == result.sha256


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def npy(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(value, dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "key", "words"),
    [
        ("a.mat", b"", "", "the format .mat is not known (known: .json"),
        ("labels", b"", "", "the format without suffix is not known"),
        ("a.json", b"[0, 1", "", "damaged, or no json"),
        ("a.json", b"\xff\xfe", "", "damaged, or no json"),
        ("a.json", b"3", "", "labels are one list"),
        ("a.json", b"[]", "", "labels are one list"),
        ("a.json", b"[[0, 1], [1, 0]]", "", "labels are one list"),
        ("a.json", b"[[0, 1], [1]]", "", "not a list of labels"),
        ("a.json", b'["cat", "dog"]', "", "texts, not class numbers"),
        ("a.json", b"[0.5, 1]", "", "float64, not class numbers"),
        ("a.json", b"[true, false]", "", "bool, not class numbers"),
        ("a.json", b"[0, null]", "", "object, not class numbers"),
        ("a.json", b"[0, 1]", "noise_labels", "nothing called 'noise_labels'"),
        ("a.json", b'{"noise_labels": [0], "open_noise": [[0, 7]]}', "", "replaces 1 pictures"),
        ("a.json", b'{"x": [0], "y": [1]}', "", "2 vectors and does not say which is meant (give `key`: x, y)"),
        ("a.json", b'{"x": [0], "y": [1]}', "z", "nothing called 'z' in it (valid: x, y)"),
        ("a.npz", b"PK\x03\x04 no zip", "", "damaged, or no npz"),
        ("a.npz", {"x": np.array([{}], dtype=object)}, "x", "damaged, or no npz"),
        ("a.npy", b"\x93NUMPY\x01\x00", "", "damaged"),
        ("a.npy", npy([Evil()]), "", "wants to build"),
        ("a.pt", b"nothing", "", "damaged"),
        ("a.csv", b"", "", "the file is empty"),
        ("a.csv", b"0\n1\ntwo\n", "", "a.csv:3: 'two' is no label"),
        ("a.csv", b"index,label\n0,1\n1\n", "", "a.csv:3: 1 values in a table of 2 columns"),
        ("a.csv", b"index,label\n0,1\n0,1\n", "", "does not number the 2 rows"),
        ("a.csv", b"index,label\n0,1\nx,1\n", "", "a.csv:3: 'x' is no label"),
    ],
)
def test_refusals_name_the_file(tmp_path: Path, name: str, content: Any, key: str, words: str) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(FieldError) as caught:
        read_labels(path, key)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "evil").exists() and not Path("evil").exists()


def test_a_pickle_that_calls_something_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "evil.pt"
    import zipfile

    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"noisy_label": Evil()}, protocol=2))
    with pytest.raises(FieldError, match="wants to build"):
        read_labels(archive, "noisy_label")


def test_a_file_that_does_not_fit_the_data_set(tmp_path: Path) -> None:
    path = written(tmp_path, "short.json", [0, 1, 2])
    with pytest.raises(FieldError, match=r"short.json: 3 labels, and the training set has 6 images \(`extent: first`"):
        noisy("file@short.json", tmp_path)
    kept = noisy({"kind": "file", "path": "short.json", "extent": "first"}, tmp_path)
    assert kept.labels.tolist() == [0, 1, 2] and kept.keep is not None and kept.keep.tolist() == [0, 1, 2]
    assert kept.rate == 2 / 3 and kept.true.tolist() == [0, 2, 1]
    written(tmp_path, "long.json", [0] * 7)
    for extent in ("all", "first"):
        with pytest.raises(FieldError, match="long.json: 7 labels, and the training set has 6 images$"):
            noisy({"kind": "file", "path": "long.json", "extent": extent}, tmp_path)
    for bad in (3, -1):
        path = written(tmp_path, "range.json", [0, 1, bad, 1, 0, bad])
        with pytest.raises(FieldError) as caught:
            noisy("file@range.json", tmp_path)
        assert f"{path}: label {bad} of image 2 is outside [0, 3), and 1 more" in str(caught.value)


# --- a cell knows the vector, never the path


def test_identity_is_the_vector(tmp_path: Path) -> None:
    written(tmp_path, "here/a.json", LABELS.tolist())
    written(tmp_path, "there/b.npz", {"x": LABELS.astype(np.uint8), "y": TRUE})
    one = plan_noise("file@here/a.json", (tmp_path,))
    two = plan_noise({"kind": "file", "path": "b.npz", "key": "x", "name": "Tuesday's", "rate": 0.4}, (tmp_path / "there",))
    assert one.identity == two.identity
    assert one.identity == {"kind": "file", "version": 1, "sha256": sha256_of(LABELS), "extent": "all"}
    assert str(tmp_path) not in canonical_json(one.identity)
    assert (one.label, one.rate) == ("file@a.json", 0.0)
    assert (two.label, two.rate) == ("Tuesday's", 0.4)
    assert two.files == {sha256_of(LABELS): f"{tmp_path}/there/b.npz#x"}
    assert plan_noise(one.identity).identity == one.identity  # what a record holds
    other = plan_noise({"kind": "file", "path": "here/a.json", "extent": "first"}, (tmp_path,))
    assert other.identity != one.identity


def test_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, data = tmp_path / "suites", tmp_path / "data"
    written(suite, "a.json", LABELS.tolist())
    written(data, "a.json", TRUE.tolist())
    written(data, "b.json", TRUE.tolist())
    first = plan_noise("file@a.json", (suite, data))
    assert first.identity["sha256"] == sha256_of(LABELS)  # beside the suite comes first
    assert plan_noise("file@b.json", (suite, data)).identity["sha256"] == sha256_of(TRUE)
    assert plan_noise(f"file@{data}/a.json", (suite,)).identity["sha256"] == sha256_of(TRUE)
    with pytest.raises(FieldError) as caught:
        plan_noise("file@c.json", (suite, data))
    assert f"no file c.json; looked for {suite}/c.json, {data}/c.json" in str(caught.value)
    monkeypatch.chdir(data)
    assert plan_noise("file@b.json").identity["sha256"] == sha256_of(TRUE)


@pytest.mark.parametrize("key", ["", "x", "x#1", "x/y"])
@pytest.mark.parametrize("folder", ["plain", "run #1", "a#b/c #"])
def test_names_may_have_a_number_sign(tmp_path: Path, folder: str, key: str) -> None:
    content = {key: LABELS, "y": TRUE} if key else {"labels": LABELS}
    path = written(tmp_path / folder, "a #2.pt", content)
    location = f"{path}#{key}" if key else str(path)
    for noise, place in (
        (f"file@{path.name}#{key}" if key else f"file@{path.name}", path.parent),
        (f"file@{location}", tmp_path),
        ({"kind": "file", "path": f"{folder}/{path.name}", "key": key}, tmp_path),
        ({"kind": "sequence", "steps": ["none", {"kind": "file", "path": f"{folder}/{path.name}", "key": key}]}, tmp_path),
    ):
        assert noisy(noise, place).labels.tolist() == LABELS.tolist(), noise
    assert measure_file(location, TRUE, 3).labels.tolist() == LABELS.tolist()
    with pytest.raises(FieldError) as caught:
        plan_noise(f"file@{folder}/gone.npz#x", (tmp_path,))
    assert f"looked for {tmp_path}/{folder}/gone.npz (" in str(caught.value)


def test_a_sha256_stands_for_a_file_that_is_elsewhere(tmp_path: Path) -> None:
    sha256 = sha256_of(LABELS)
    planned = plan_noise({"kind": "file", "path": "gone.json", "sha256": sha256.upper()}, (tmp_path,))
    assert planned.identity["sha256"] == sha256 and planned.files == {}
    with pytest.raises(FieldError, match=f"no file is known for the label vector with sha256 {sha256}"):
        draw(planned.identity, given(), {"name": "cifar10"}, 0)
    written(tmp_path, "other.json", TRUE.tolist())
    with pytest.raises(FieldError, match=f"other.json: the labels have the sha256 {sha256_of(TRUE)}, not {sha256}"):
        plan_noise({"kind": "file", "path": "other.json", "sha256": sha256}, (tmp_path,))
    for wanted, words in (({"kind": "file"}, "needs its path"), ({"kind": "file", "sha256": "abc"}, "no SHA-256")):
        with pytest.raises(FieldError, match=words):
            plan_noise(wanted)


def test_a_file_that_changes_between_plan_and_run(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", LABELS.tolist())
    planned = plan_noise("file@a.json", (tmp_path,))
    written(tmp_path, "a.json", TRUE.tolist())
    with pytest.raises(FieldError, match="the file has changed") as caught:
        draw(planned.identity, given(files=planned.files), {"name": "cifar10"}, 0)
    assert str(path) in str(caught.value)


def plan_of(folder: Path, noises: str, **more: Any) -> Plan:
    text = f"datasets: digits\nnoises: {noises}\nmethods: [erm]\ntraining: {{epochs: 1}}\n"
    (folder / "suite.yaml").write_text(text)
    return make_plan(*load_suite(folder / "suite.yaml"), **more)


def test_suites_name_files(tmp_path: Path) -> None:
    labels = (np.arange(1442) % 10).tolist()
    written(tmp_path, "mine.json", labels)
    written(tmp_path / "data", "noise/theirs.json", labels[::-1])
    noises = "[file@mine.json, {kind: file, path: noise/theirs.json, name: theirs, rate: 0.4}, longtail@0.5 + symmetric@0.2]"
    plan = plan_of(tmp_path, noises, data=tmp_path / "data")
    assert [entry.noise for entry in plan.entries] == ["file@mine.json", "theirs", "longtail@0.5 + symmetric@0.2"]
    assert [entry.rate for entry in plan.entries] == [0.0, 0.4, 0.2]
    assert all(str(tmp_path) not in canonical_json(entry.cell) for entry in plan.entries)
    sha256 = plan.entries[0].cell["noise"]["sha256"]
    assert plan.entries[0].noise_files == {sha256: f"{tmp_path}/mine.json#"}
    only = plan_of(tmp_path, noises, data=tmp_path / "data", overrides=Overrides(only={"rate": 0.4}))
    assert [entry.noise for entry in only.entries] == ["theirs"]
    with pytest.raises(SuiteError) as caught:
        plan_of(tmp_path, "[file@noise/theirs.json]", data=tmp_path / "nowhere")
    assert "suite.yaml:2" in str(caught.value) and "no file noise/theirs.json" in str(caught.value)


def test_two_names_of_one_file_share_a_cell(tmp_path: Path) -> None:
    labels = (np.arange(1442) % 10).tolist()
    written(tmp_path, "a.json", labels)
    written(tmp_path, "b.json", labels)
    plan = plan_of(tmp_path, "[file@a.json, file@b.json]")
    assert len({entry.id for entry in plan.entries}) == 1 and len(plan.entries) == 2


# --- description


def test_description_of_six_labels() -> None:
    facts = describe(measure(LABELS, TRUE, 3), NAMES)
    assert (facts["samples"], facts["wrong"], facts["rate"]) == (6, 2, 2 / 6)
    rows = [(row["class"], row["samples"], row["wrong"], row["rate"], row["given"]) for row in facts["classes"]]
    assert rows == [("ant", 3, 1, 1 / 3, 2), ("bee", 2, 1, 0.5, 2), ("cat", 1, 0, 0.0, 2)]
    assert facts["class_rate"] == {"min": 0.0, "median": 1 / 3, "max": 0.5}
    assert facts["matrix"] == [[0.666667, 0.333333, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert facts["flows"] == [
        {"from": "bee", "to": "cat", "share": 0.5},
        {"from": "ant", "to": "bee", "share": 1 / 3},
    ]
    assert facts["sha256"] == sha256_of(LABELS) and json.loads(json.dumps(facts)) == facts
    text = describe_text(facts)
    assert "2 of 6 labels are wrong: 33.33 % (nominal -)" in text
    assert "per class: 0.00 % to 50.00 %, median 33.33 %" in text and sha256_of(LABELS) in text
    (ant,) = [line.split() for line in text.splitlines() if line.split()[:2] == ["ant", "3"]]
    assert ant == ["ant", "3", "1", "33.33", "%", "2"]
    assert ["ant", "66.7", "33.3", "0.0"] in [line.split() for line in text.splitlines()]


def test_description_against_the_nominal() -> None:
    data = NoiseInput(np.arange(1000) % 2, 2, {}, ("no", "yes"))
    result = draw(noise_identity(parse_short("symmetric@0.4")), data, {"name": "x"}, 0)
    text = describe_text(describe(result, ("no", "yes")))
    assert "(nominal 40.00 %, its convention gives 20.00 % on average)" in text
    assert "exactly int(0.4 N) samples" in text


def test_description_of_samples_that_left_and_pictures_that_changed() -> None:
    data = NoiseInput(np.arange(1000) % 10, 10, {}, tuple("abcdefghij"), source_size=lambda slug: 500)
    result = draw(noise_identity(parse_short("longtail@0.5 + open-set@0.2")), data, {"name": "x"}, 0)
    facts = describe(result, data.class_names)
    assert facts["samples"] == len(result.labels) and facts["replaced"] == int(0.2 * len(result.labels))
    assert facts["wrong"] == facts["replaced"] and sum(row["wrong"] for row in facts["classes"]) == 0
    text = describe_text(facts)
    assert f"{len(result.labels):,} samples stay in the training set" in text
    assert f"{facts['replaced']:,} pictures are another data set's" in text


def test_many_classes_are_described_by_their_largest_flows() -> None:
    true = np.arange(3000) % 30
    labels = true.copy()
    labels[true == 7] = 8
    names = tuple(f"c{i}" for i in range(30))
    facts = describe(measure(labels, true, 30), names)
    assert facts["flows"] == [{"from": "c7", "to": "c8", "share": 1.0}]
    text = describe_text(facts)
    assert "largest flows" in text and ["c7", "c8", "100.00", "%"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_matrix_pictures(classes: int) -> None:
    names = tuple(f"class {i}" for i in range(classes))
    matrix = 0.6 * np.eye(classes) + 0.4 / classes
    image = matrix_png(matrix, names, "CIFAR-10, symmetric@0.4")
    assert image.startswith(b"\x89PNG\r\n\x1a\n") and image == matrix_png(matrix, names, "CIFAR-10, symmetric@0.4")
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(image))
    assert pixels.shape[0] > 200 and pixels.shape[1] > 200
    assert image != matrix_png(np.eye(classes), names, "CIFAR-10, symmetric@0.4")


def test_measuring_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="5 labels, and there are 6 true ones"):
        measure(LABELS[:5], TRUE, 3)
    with pytest.raises(FieldError, match=r"lie in \[0, 2\], not in \[0, 2\)"):
        measure(LABELS, TRUE, 2)
    written(tmp_path, "a.npz", {"x": LABELS[:4]})
    assert measure_file(f"{tmp_path}/a.npz#x", TRUE, 3).rate == 0.25


# --- export


def artefact_of(labels: Labels = LABELS) -> NoisyLabels:
    return measure(labels, TRUE, 3)


@pytest.mark.parametrize("form", FORMATS)
def test_exports_load_again(tmp_path: Path, form: str) -> None:
    name = f"out{FORMATS[form]}"
    written(tmp_path, name, export(artefact_of(), form))
    result = noisy(f"file@{name}", tmp_path)
    assert result.labels.tolist() == LABELS.tolist() and result.sha256 == artefact_of().sha256
    assert export(artefact_of(), form) == export(artefact_of(), form)


def test_exports_are_what_the_programs_write() -> None:
    assert export(artefact_of(), "dividemix") == b"[0, 2, 1, 1, 0, 2]"
    scanmix = b'{"noise_labels": [0, 2, 1, 1, 0, 2], "open_noise": [], "closed_noise": [3, 5]}'
    assert export(artefact_of(), "scanmix") == scanmix
    lines = export(artefact_of(), "csv").decode().splitlines()
    assert lines[0] == "index,noisy_label,true_label" and lines[4] == "3,1,0" and len(lines) == 7
    with np.load(io.BytesIO(export(artefact_of(), "npz"))) as archive:
        assert archive["true_labels"].tolist() == TRUE.tolist() and str(archive["sha256"]) == sha256_of(LABELS)


def test_file_names_of_the_programs() -> None:
    def name(form: str, noise: Any) -> str:
        return file_name(form, noise_identity(parse_short(noise) if isinstance(noise, str) else noise), "cifar10", 3)

    assert name("dividemix", "symmetric@0.5") == "0.5_sym.json"
    assert name("dividemix", {"kind": "dividemix-seed", "rate": 0.49, "mode": "asym"}) == "0.5_asym.json"
    assert name("scanmix", "symmetric@0.2") == "0.20.json"
    assert name("scanmix", "asymmetric@0.49") == "0.49_asym.json"
    assert name("npz", "pairflip@0.45") == "cifar10-pairflip-0.45-seed3.npz"
    assert name("csv", "human@worse") == "cifar10-human-seed3.csv"


def test_what_a_label_vector_cannot_say() -> None:
    with pytest.raises(FieldError, match="unknown format 'mat'"):
        export(artefact_of(), "mat")
    data = NoiseInput(np.arange(100) % 2, 2, {}, ("a", "b"), source_size=lambda slug: 500)
    for noise, words in (("longtail@0.5", "leaves samples out"), ("open-set@0.2", "replaces pictures")):
        result = draw(noise_identity(parse_short(noise)), data, {"name": "x"}, 0)
        with pytest.raises(FieldError, match=words):
            export(result, "npy")


def test_make_gives_the_labels_of_a_cell(tmp_path: Path) -> None:
    import bench.data

    dataset = {"name": "digits", "revision": bench.data.dataset_class("digits").revision}
    loaded = bench.data.load(dataset)
    made = make(loaded, dataset, "symmetric@0.5", seed=2)
    identity = noise_identity(parse_short("symmetric@0.5"))
    assert made.sha256 == draw(identity, NoiseInput.of(loaded, "digits"), dataset, 2).sha256
    written(tmp_path, "again.json", export(made, "dividemix"))
    assert make(loaded, dataset, "file@again.json", folders=(tmp_path,)).sha256 == made.sha256
    with pytest.raises(FieldError, match="human@worse does not fit: there are no human labels for digits"):
        make(loaded, dataset, "human@worse")
    part = Loaded(Split(loaded.train.images[:5], loaded.train.labels[:5]), loaded.test, loaded.class_names)
    with pytest.raises(FieldError, match="1442 labels, and the training set has 5 images"):
        make(part, dataset, "file@again.json", folders=(tmp_path,))
