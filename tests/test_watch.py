"""Watched quantities: hand-worked numbers, and that watching moves no bit of a result and shows no truth to a method."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small import MLP, make_cell, make_task, pixels, start
from torch import Tensor

from bench.cell import cell_id
from bench.check.access import search
from bench.check.subject import Subject, difference
from bench.method import EpochMethod, methods
from bench.ops.sample_types import centre_distance, sample_types
from bench.plan import Overrides, make_plan
from bench.records import load_record, write_record
from bench.suite import load_suite
from bench.trial.evaluate import Truth
from bench.trial.runner import Options, forget_checkpoint, run_cell
from bench.trial.task import Task
from bench.trial.watch import Watcher, unnoticed
from bench.trial.watched import Facts, Gallery, Members, Points, Values, tsne
from bench.watch import parse
from bench.yaml_source import SuiteError

CORRECT = np.array([True, True, True, False, False, True])
TRUE = np.array([0, 1, 2, 1, 2, 2])
GIVEN = torch.tensor([0, 1, 2, 0, 1, 2])


def facts(correct: Any = CORRECT, true: Any = TRUE, epochs: int = 4) -> Facts:
    return Facts(Truth(correct, None, true), GIVEN, 3, epochs, ("a", "b", "c"))


def members(*index: int) -> Tensor:
    return torch.zeros(6, dtype=torch.bool).index_fill(0, torch.tensor(index, dtype=torch.int64), True)


def watching(task: Task, **watch: Any) -> Watcher:
    watcher = Watcher(tuple(watch.items()), task, Truth(CORRECT, None, TRUE))
    task.watch_with(watcher.sightings)
    task.start_epoch(0)
    return watcher


class Shows(EpochMethod):
    """Trains like erm and shows what a test gives it."""

    slug = "shows"

    def setup(self, task: Any) -> None:
        self.net = task.learner()
        self.twin = task.average(self.net)

    def epoch(self, epoch: int) -> None:
        for batch in self.task.batches():
            self.net.step(torch.nn.functional.cross_entropy(self.net(batch.images), batch.labels))
        self.task.log("noise", torch.rand((), generator=self.task.generator("b")))
        self.show()
        self.task.log("draw", torch.rand((), generator=self.task.generator("a")))
        self.task.log("noise", torch.rand((), generator=self.task.generator("b")))
        self.task.log("first", float(next(self.task.batches()).index[0]))

    def show(self) -> None:
        task = self.task
        task.observe("set", members=lambda: task.losses(self.net) < 2.3)
        task.observe("value", values=self.meddle, threshold=lambda: 0.5, simulated=lambda: torch.ones(3))
        task.observe("place", points=lambda: task.features(self.twin), members=lambda: task.labels < 5)

    def meddle(self) -> Tensor:
        """All that a careless callable could move."""
        task = self.task
        for name in ("a", "b"):
            torch.rand(3, generator=task.generator(name))
        torch.rand(3)
        next(task.batches())
        task.log("noise", 5.0)
        task.log("extra", 1.0)
        self.twin.infer(next(task.plain_images()))
        return task.predictions(self.net).max(dim=1).values

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(methods(), Shows.slug, Shows)
    return make_cell(Shows, model=MLP, training={"epochs": 4})


ALL = tuple((name, "all") for name in ("set", "value", "losses", "gallery")) + (("place", (4,)),)
OPTIONS = Options("watch")


# --- what is kept


def test_a_set_by_hand() -> None:
    """Clean: 0, 1, 2, 5. {0, 1, 3}: precision 2/3, recall 2/4. {3, 4}: 0 and 0. {}: no precision."""
    series = Members(facts(), "all")
    for epoch, rows in enumerate([members(0, 1, 3), members(3, 4), members()]):
        series.see(epoch, {"members": rows})
    found = series.result()
    assert found["kind"] == "members" and found["epoch"] == [0, 1, 2] and found["size"] == [3, 2, 0]
    assert found["precision"] == [0.666667, 0.0, None] and found["recall"] == [0.5, 0.0, 0.0]
    # clean samples: 0 and 1 once, 2 and 5 never; noisy ones: 3 twice, 4 once
    assert found["counts"]["2"] == {"clean": [2, 2, 0, 0], "noisy": [0, 1, 1, 0]}
    assert found["counts"]["0"] == {"clean": [2, 2], "noisy": [1, 1]}
    assert found["types"]["epoch"] == [0, 1, 2] and found["types"]["sizes"]["clean_easy"] == [6, 6, 6]
    assert found["types"]["correct"]["clean_easy"] == [0.666667] * 3
    assert found["types"]["correct"]["mislabelled_easy"] == [None] * 3


def test_a_set_is_judged_by_the_labels_that_the_method_has_corrected() -> None:
    """Given 3 and 4 are wrong. Once 3 carries its true label, {0, 3, 4} is right in two of three, and 3 counts as recalled."""
    known = facts()
    assert known.truth.true is not None
    labels = known.given.clone()
    labels[3] = int(known.truth.true[3])
    series = Members(known, "all")
    series.see(0, {"members": members(0, 3, 4)})
    series.see(1, {"members": members(0, 3, 4), "labels": labels})
    found = series.result()
    assert found["precision"] == [0.333333, 0.666667] and found["recall"] == [0.25, 0.4]
    assert found["counts"]["1"]["noisy"] == [0, 0, 2]  # counted by the given labels


def test_sample_types_need_ten_epochs() -> None:
    """Of 21 epochs: always in; 11 of 21 in; 10 of 21; never: one of each type, and only the second is not rightly labelled."""
    correct = np.array([True, False, True, True])
    series = Members(Facts(Truth(correct), torch.zeros(4, dtype=torch.int64), 3, 21), "last")
    for epoch in range(21):
        series.see(epoch, {"members": torch.tensor([True, epoch < 11, epoch < 10, False])})
    found = series.result()["types"]
    order = ("clean_easy", "clean_hard", "mislabelled_hard", "mislabelled_easy")
    assert found["epoch"] == [20] and [found["sizes"][name] for name in order] == [[1]] * 4
    assert [found["correct"][name] for name in order] == [[1.0], [0.0], [1.0], [1.0]]


def test_epochs_choose_what_is_kept_and_not_what_is_counted() -> None:
    kept = {wanted: Members(facts(epochs=40), wanted) for wanted in ("all", "last", (2, 3))}
    for series in kept.values():
        for epoch in range(39):
            series.see(epoch, {"members": members(0)})
    assert kept["all"].result()["epoch"] == list(range(39)) and kept["last"].result()["epoch"] == [38]
    assert kept[2, 3].result()["epoch"] == [1, 2] and list(kept[2, 3].result()["counts"]) == ["1", "2"]
    assert [int(key) for key in kept["all"].result()["counts"]] == [3, 7, 11, 15, 19, 23, 27, 31, 35, 38]
    assert list(kept["last"].result()["counts"]) == ["38"]
    assert all(series.times.tolist() == [39, 0, 0, 0, 0, 0] for series in kept.values())


def test_where_nobody_knows_the_truth() -> None:
    series = Members(facts(None, None), "all")
    series.see(0, {"members": members(1, 2)})
    found = series.result()
    assert found["size"] == [2] and found["precision"] is None and found["recall"] is None and found["types"]["correct"] is None
    assert found["counts"]["0"] == {"clean": None, "noisy": None, "all": [4, 2]}
    values = Values(facts(None, None), "all")
    values.see(0, {"values": torch.arange(6.0)})
    assert sum(values.result()["at"]["0"]["all"]) == 6


def test_values_by_hand() -> None:
    """From 0 to 5 in 50 parts: 0 is in the first, 5 in the last, and 1, 2, 3 in parts 10, 20, 30. Rows 3 and 4 are noisy."""
    series = Values(facts(), "last")
    mixture = {"family": "gaussian", "weights": [0.25, 0.75], "means": [1.0, 1 / 3], "variances": [0.1, 0.2]}
    parts = {"values": torch.tensor([0.0, 1.0, 1.0, 2.0, 3.0, math.nan]), "mixture": mixture,
             "simulated": torch.tensor([5.0, 5.0, 0.05]), "threshold": 2.0}  # fmt: skip
    series.see(0, {"values": torch.zeros(6)})
    series.see(1, parts)
    found = series.result()["at"]
    assert list(found) == ["1"]
    entry = found["1"]
    assert entry["edges"] == pytest.approx([i / 10 for i in range(51)])
    assert {i: n for i, n in enumerate(entry["clean"]) if n} == {0: 1, 10: 2}
    assert {i: n for i, n in enumerate(entry["noisy"]) if n} == {20: 1, 30: 1}
    assert {i: n for i, n in enumerate(entry["simulated"]) if n} == {0: 1, 49: 2}
    assert entry["threshold"] == 2.0 and entry["mixture"]["means"] == [1.0, 0.333333]


def test_values_below_zero_and_none_at_all() -> None:
    series = Values(facts(), "all")
    series.see(0, {"values": torch.tensor([-2.0, -1, -1, -1, -1, -1.5])})
    series.see(1, {"values": torch.full((6,), math.nan)})
    found = series.result()["at"]
    assert found["0"]["edges"][0] == -2.0 and found["0"]["edges"][-1] == -1.0 and sum(found["0"]["clean"]) == 4
    assert sum(found["1"]["clean"] + found["1"]["noisy"]) == 0


def test_centre_distance_by_hand() -> None:
    """Class 0: (0, 0) and (2, 0) against (1, 3), distance 3; class 1: (5, 5) against (5, 6), distance 1; class 2 has no other."""
    points = torch.tensor([[0.0, 0], [2, 0], [1, 3], [5, 5], [5, 6], [7, 7]])
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    some = torch.tensor([True, True, False, True, False, True])
    assert float(centre_distance(points, labels, some, ~some, 3)) == pytest.approx(2.0)
    assert math.isnan(float(centre_distance(points, labels, some, torch.zeros(6).bool(), 3)))


def test_sample_types_by_hand() -> None:
    """Of 40 epochs: 31 in is fewer than 10 out; 9 in; 20 to 20 is at least as often in; 19 in."""
    found = sample_types(torch.tensor([40, 31, 30, 20, 19, 10, 9, 0]), 40)
    assert {name: torch.nonzero(rows)[:, 0].tolist() for name, rows in found.items()} == {
        "clean_easy": [0, 1], "clean_hard": [2, 3], "mislabelled_hard": [4, 5], "mislabelled_easy": [6, 7],
    }  # fmt: skip


def test_points_by_hand() -> None:
    """Everything is clean and easy at first, so its centres against {0, 1}: class 0, rows 0 and 3, (1.5, 0) against (0, 0);
    class 1, rows 1 and 4, (2.5, 0) against (1, 0). With labels of its own the method decides what a class is."""
    points = torch.stack([torch.arange(6.0), torch.zeros(6)], dim=1)
    series = Points(facts(), "last")
    series.see(0, {"points": points, "members": members(0, 1)})
    series.see(2, {"points": points, "members": members(0, 1), "labels": torch.tensor([0, 1, 1, 1, 1, 1])})
    found = series.result()
    assert found["distance"]["epoch"] == [0, 2] and found["distance"]["clean_easy"] == [1.5, 1.0]  # 0 and 2
    assert found["distance"]["clean_hard"] == [None, None]
    assert list(found["at"]) == ["2"]
    scatter = found["at"]["2"]
    assert scatter["given"] == GIVEN.tolist() and scatter["true"] == TRUE.tolist() and len(scatter["x"]) == len(scatter["y"]) == 6
    assert series.result() == found


def test_at_most_a_thousand_samples_are_drawn() -> None:
    count = 2500
    series = Points(Facts(Truth(None), torch.arange(count), 3, 4), "last")
    index = series.drawn()
    assert len(index) == 1000 and index[0] == 0 and index[-1] == 2497 and set(index.diff().tolist()) == {2, 3}


def test_points_that_cannot_be_drawn() -> None:
    assert not tsne(np.zeros((10, 3), dtype=np.float32)).any() and tsne(np.ones((2, 3), dtype=np.float32)).shape == (2, 2)
    series = Points(facts(), (1,))
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    points[2] = math.nan
    series.see(0, {"points": points})
    assert series.result()["at"]["0"]["given"] == [0, 1, 0, 1, 2] and "distance" not in series.result()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gallery_shows_the_images_with_the_lowest_scores(channels: int) -> None:
    images = pixels(6, channels=channels)
    scores = torch.tensor([0.5, math.nan, 0.1, 0.3, -1.0, 0.9])
    method = SimpleNamespace(task=make_task(GIVEN, images=images), clean_scores=lambda: scores, slug="x")
    watcher = watching(method.task, gallery="all")
    watcher.after_epoch(method, 0)  # type: ignore[arg-type]
    block = watcher.result()["gallery"]
    assert block["kind"] == "gallery" and block["classes"] is None
    shown = block["at"]["0"]
    assert [entry["index"] for entry in shown] == [4, 2, 3, 0, 5] and [entry["score"] for entry in shown[:2]] == [-1.0, 0.1]
    assert [(entry["given"], entry["true"]) for entry in shown[:3]] == [(1, 2), (2, 2), (0, 1)]
    for entry in shown:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["png"]))))
        wanted = images[entry["index"]].permute(1, 2, 0).numpy()
        assert np.array_equal(picture.reshape(wanted.shape), wanted)


def test_large_images_are_made_smaller_and_24_are_shown() -> None:
    series = Gallery(Facts(Truth(None), torch.zeros(30, dtype=torch.int64), 3, 4), "all")
    large = torch.zeros(30, 3, 200, 100, dtype=torch.uint8)
    series.see(0, {"scores": torch.arange(30.0), "pixels": lambda index: large[index]})
    shown = series.result()["at"]["0"]
    assert len(shown) == 24 and shown[0]["true"] is None
    assert Image.open(io.BytesIO(base64.b64decode(shown[0]["png"]))).size == (48, 96)


def test_losses_are_of_the_given_labels_under_the_predictions() -> None:
    probs = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4], [0.1, 0.1, 0.8]])
    method = SimpleNamespace(task=make_task(GIVEN), predict=lambda images: probs, slug="x", clean_scores=lambda: None)
    watcher = watching(method.task, losses="all")
    watcher.after_epoch(method, 0)  # type: ignore[arg-type]
    entry = watcher.result()["losses"]["at"]["0"]
    assert entry["edges"][-1] == pytest.approx(-math.log(1e-12), rel=1e-5)  # row 3 cannot be more wrong
    assert entry["noisy"][-1] == 1 and entry["noisy"][2] == 1 and entry["clean"][0] == 3 and entry["clean"][1] == 1


# --- the method's side


def test_nothing_is_called_unless_it_is_watched_in_this_epoch() -> None:
    task = make_task(GIVEN)
    called: list[str] = []

    def show(name: str) -> None:
        task.observe(name, values=lambda: called.append(name) or torch.zeros(6))

    task.start_epoch(0)
    show("x")
    watcher = watching(task, x=(2, 3), y="last")
    for epoch in range(4):
        task.start_epoch(epoch)
        for name in ("x", "y", "z"):
            show(name)
        watcher.after_epoch(SimpleNamespace(task=task), epoch)  # type: ignore[arg-type]
    assert called == ["y", "x", "y", "x", "y", "y"]
    assert list(watcher.result()["x"]["at"]) == ["1", "2"] and list(watcher.result()["y"]["at"]) == ["3"]


def test_of_several_calls_in_an_epoch_the_first_counts_and_what_it_showed_is_copied() -> None:
    task = make_task(GIVEN)
    watcher = watching(task, s=None)
    shown = members(0, 1)
    task.observe("s", members=lambda: shown)
    shown.fill_(True)
    task.observe("s", members=lambda: shown)
    assert torch.equal(watcher.sightings.take()["s"]["members"], members(0, 1))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"member": 0}, "task.observe knows no 'member'; did you mean members"),
        ({}, "needs one of points, values, members; it was given nothing"),
        ({"threshold": 0.5}, "needs one of points, values, members; it was given threshold"),
        ({"values": torch.zeros(6), "members": members(1)}, "values takes no members; valid: mixture, simulated, threshold"),
        ({"members": torch.zeros(6)}, "members must be bool, got torch.float32"),
        ({"members": members(1)[:5]}, r"members must have shape \(6,\), got \(5,\)"),
        ({"members": [True] * 6}, "members must return a tensor, not a list"),
        ({"values": torch.zeros(6, 1)}, r"values must have shape \(6,\), got \(6, 1\)"),
        ({"values": GIVEN}, "values must be floating, got torch.int64"),
        ({"points": torch.zeros(6)}, r"points must have shape \(6, D\), got \(6,\)"),
        ({"values": torch.zeros(6), "simulated": torch.zeros(2, 2)}, r"simulated must have shape \(M,\), got \(2, 2\)"),
        ({"values": torch.zeros(6), "threshold": torch.zeros(2)}, r"threshold must have shape \(\), got \(2,\)"),
        ({"values": torch.zeros(6), "mixture": (torch.zeros(2), torch.zeros(3), torch.zeros(2))}, "a mixture is .weights"),
    ],
)
def test_what_cannot_be_observed(kinds: dict[str, Any], message: str) -> None:
    task = make_task(GIVEN)
    watching(task, x=None)
    with pytest.raises(ValueError, match=message):
        task.observe("x", **{name: lambda value=value: value for name, value in kinds.items()})


def test_names_are_of_one_kind_and_not_the_harness_s() -> None:
    task = make_task(GIVEN)
    watching(task)
    with pytest.raises(ValueError, match="the harness shows of every method"):
        task.observe("losses", values=lambda: torch.zeros(6))
    task.observe("x", values=lambda: torch.zeros(6))
    with pytest.raises(ValueError, match="was shown as values, and now as members"):
        task.observe("x", members=lambda: members(1))


def test_a_degenerate_mixture_is_not_shown() -> None:
    from bench.ops.beta_mixture import beta_mixture
    from bench.ops.mixtures import gaussian_mixture_1d

    task = make_task(GIVEN)
    values = torch.tensor([0.1, 0.12, 0.1, 0.9, 0.88, 0.91])
    shown = {"flat": gaussian_mixture_1d(torch.zeros(6)), "gaussian": gaussian_mixture_1d(values), "beta": beta_mixture(values)}
    watcher = watching(task, flat=None, gaussian=None, beta=None)
    for name, mixture in shown.items():
        task.observe(name, values=lambda: values, mixture=lambda mixture=mixture: mixture)
    seen = {name: parts["mixture"] for name, parts in watcher.sightings.take().items()}
    assert seen["flat"] is None and seen["gaussian"]["family"] == "gaussian" and seen["beta"]["family"] == "beta"
    assert seen["gaussian"]["means"] == pytest.approx([0.1066667, 0.8966667], abs=1e-4)


def test_what_is_done_unnoticed_leaves_no_trace() -> None:
    method = start(Shows(), make_task(torch.arange(30) % 3, training={"batch_size": 8}))
    task = method.task
    for epoch in range(2):
        task.start_epoch(epoch)
        task.log("noise", 1.0)
        task.generator("b")
        method.net(next(task.plain_images()))
        before = (
            method.net.forward_images, method.twin.forward_images, task._loops, dict(task._log), list(task._generators),
            task.generator("b").get_state().tolist(), torch.get_rng_state().tolist(), method.net.network.training,
            [buffer.tolist() for buffer in method.net.network.buffers()],
        )  # fmt: skip
        with unnoticed(task):
            method.meddle()
            assert not method.net.network.training
        after = (
            method.net.forward_images, method.twin.forward_images, task._loops, dict(task._log), list(task._generators),
            task.generator("b").get_state().tolist(), torch.get_rng_state().tolist(), method.net.network.training,
            [buffer.tolist() for buffer in method.net.network.buffers()],
        )  # fmt: skip
        assert before == after and method.net.network.training


# --- a whole cell


def test_watching_changes_nothing_but_the_record_s_block(cell: dict[str, Any]) -> None:
    plain, watched = run_cell(cell, OPTIONS), run_cell(cell, replace(OPTIONS, watch=ALL))
    assert plain["status"] == watched["status"] == "done" and "watched" not in plain
    for key in ("metrics", "curve", "detail", "noise", "data", "id"):
        assert plain[key] == watched[key], key
    for key in ("forward_images", "backward_images", "networks"):
        assert plain["cost"][key] == watched["cost"][key], key
    block = watched["watched"]
    assert list(block) == [name for name, _ in ALL if name != "gallery"] and "extra" not in watched["curve"]
    assert block["set"]["epoch"] == [0, 1, 2, 3] and list(block["place"]["at"]) == ["3"]
    assert block["place"]["distance"]["epoch"] == [0, 1, 2, 3]
    assert block["value"]["at"]["0"]["threshold"] == 0.5 and len(block["losses"]["at"]) == 4
    assert watched["warnings"] == ["watch: 'gallery' was never observed; shows has no clean_scores"]


def test_a_resumed_run_shows_the_same(cell: dict[str, Any], tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(epoch: int, values: Any) -> None:
        if epoch == 2:
            raise Stop

    options = replace(OPTIONS, watch=(*ALL[:-1], ("place", "last")), checkpoint_seconds=0.0)
    whole = run_cell(cell, options)
    options = replace(options, work_folder=str(tmp_path))
    with pytest.raises(Stop):
        run_cell(cell, options, stop)
    resumed = run_cell(cell, options)
    assert resumed["watched"] == whole["watched"] and resumed["warnings"] == whole["warnings"]
    # what is watched only from the resumption on is said to be
    forget_checkpoint(options, cell_id(cell))
    with pytest.raises(Stop):
        run_cell(cell, replace(options, watch=()), stop)
    late = run_cell(cell, replace(options, watch=(("set", None),)))
    assert late["watched"]["set"]["epoch"] == [2, 3] and late["metrics"] == whole["metrics"]
    assert late["warnings"] == ["watch: 'set' is watched from epoch 3 on; the checkpoint was made without it"]


def test_a_quantity_that_is_not_shown_again_after_a_resume_is_not_lost() -> None:
    task = make_task(GIVEN)
    first = watching(task, place="last", value="last")
    points = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    task.observe("place", points=lambda: points, members=lambda: members(1))
    task.observe("value", values=lambda: points[:, 0])
    first.after_epoch(SimpleNamespace(task=task), 0)  # type: ignore[arg-type]
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    again = watching(make_task(GIVEN), place="last", value="last")
    assert again.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True), 1) == []
    assert again.result() == first.result() and again.sightings.known == {"place": "points", "value": "values"}
    assert list(again.result()["place"]["at"]) == list(again.result()["value"]["at"]) == ["0"]


def test_a_record_with_the_block_is_read_like_any_other(cell: dict[str, Any], tmp_path: Path) -> None:
    record = run_cell(cell, replace(OPTIONS, watch=ALL))
    path = write_record(tmp_path, record)
    assert load_record(path)["watched"] == record["watched"]


def test_names_that_nobody_shows_are_warnings(cell: dict[str, Any]) -> None:
    record = run_cell(cell, replace(OPTIONS, watch=(("sets", None), ("value", (9,)))))
    assert record["status"] == "done" and "watched" not in record
    assert record["warnings"] == [
        "watch: 'sets' was never observed; shows observes: losses, place, set, value",
        "watch: 'value' was not observed in the epochs that were asked for",
    ]
    erm = run_cell(make_cell("erm"), replace(OPTIONS, watch=(("loss", None),)))
    assert erm["warnings"] == ["watch: 'loss' was never observed; erm observes: gallery, losses"]


def test_what_cannot_be_drawn_does_not_fail_the_cell(cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(points: Any) -> Any:
        raise RuntimeError("no plane")

    monkeypatch.setattr("bench.trial.watched.tsne", broken)
    record = run_cell(cell, replace(OPTIONS, watch=(("place", "last"),)))
    assert record["status"] == "done" and record["warnings"] == ["watch: nothing is shown (RuntimeError: no plane)"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("slug", ["mtadcs", "odd", "dividemix"])
def test_watching_on_a_gpu_shows_the_same_kinds(slug: str, tmp_path: Path) -> None:
    watch = tuple((name, "all") for name in sorted({*OFFERS[slug] - {"features"}, "losses", "gallery"}))
    small = {"mtadcs": {"trusted_size": 0, "warmup": 1}, "odd": {"removal_epoch": 1}, "dividemix": {"warmup": 1}}[slug]
    options = replace(OPTIONS, watch=watch, device="cuda", work_folder=str(tmp_path), checkpoint_seconds=0.0)
    record = run_cell(make_cell(slug, small), options)
    assert record["status"] == "done" and record["watched"].keys() == dict(watch).keys()
    assert run_cell(make_cell(slug, small), options)["watched"].keys() == dict(watch).keys()  # from its checkpoint


# --- every method of ours


class Watched(Subject):
    """A method whose runs watch everything that it offers, in every epoch."""

    watch: tuple[Any, ...] = ()

    def job(self, cell: dict[str, Any], work: str | None = None) -> Any:
        job = super().job(cell, work)
        return replace(job, options=replace(job.options, watch=self.watch))


#: what each method offers besides what the harness shows of all
OFFERS = {
    "dividemix": {"clean_set", "loss"},
    "elr-plus": {"confidence"},
    "llc-dro": {"confidence"},
    "m-correction": {"loss"},
    "mtadcs": {"confidence_set", "features", "selected"},
    "mtadcs-plus": {"confidence_set", "features", "selected"},
    "odd": {"loss"},
    "scan+dividemix": {"clean_set", "loss"},
    "scanmix": {"clean_set", "loss"},
}


@pytest.mark.parametrize("slug", sorted(methods()))
def test_watching_everything_moves_no_bit_and_shows_no_truth(slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr("bench.trial.watched.tsne", lambda points: points[:, :2])
    plain = Subject(slug).base
    watched = Watched(slug)
    offered = OFFERS.get(slug, set())
    watched.watch = tuple((name, "all") for name in sorted({*offered, "losses", "gallery"}))
    outcome = watched.base
    assert outcome.trial.watcher.sightings.known.keys() == offered
    assert difference(plain.results(), outcome.results()) is None
    scored = outcome.method.clean_scores() is not None
    assert outcome.record["watched"].keys() == {*offered, "losses", *(["gallery"] if scored else [])}
    assert not outcome.touched and search(watched)[1] is None


def test_the_truth_would_be_found_behind_the_sightings() -> None:
    """The search that finds no truth in the test above does find it where the two halves are joined."""
    watched = Watched("erm")
    watched.watch = (("losses", "all"),)
    outcome = watched.base
    outcome.method.task._sightings.back = outcome.trial.watcher
    found = search(watched)[1]
    assert found is not None and "labels" in found[1]


# --- the suite


def suite(folder: Path, watch: str) -> Any:
    path = folder / "s.yaml"
    path.write_text(f"datasets: digits\nnoises: none\nmethods: erm\n{watch}\n")
    return load_suite(path)[0]


@pytest.mark.parametrize(
    ("watch", "wanted"),
    [
        ("", ()),
        ("watch: []", ()),
        ("watch: loss", (("loss", None),)),
        ("watch: [loss, gallery]", (("loss", None), ("gallery", None))),
        ("watch: {loss: [10, 1], set: all, x: }", (("loss", (1, 10)), ("set", "all"), ("x", None))),
    ],
)
def test_what_a_suite_can_say(tmp_path: Path, watch: str, wanted: Any) -> None:
    assert suite(tmp_path, watch).watched() == wanted


@pytest.mark.parametrize(
    ("watch", "problem"),
    [
        ("watch:\n  loss: lats", "s.yaml:5: watch.loss: unknown epochs 'lats' (did you mean last?; epochs are all, last, or"),
        ("watch: {loss: 10}", "s.yaml:4: watch.loss: 10 are no epochs (epochs are all, last, or a list of numbers"),
        ("watch: {loss: [0, 1]}", "s.yaml:4: watch.loss: [0, 1] are no epochs"),
        ("watch: {loss: []}", "s.yaml:4: watch.loss: [] are no epochs"),
        ("watch: [loss, loss]", "s.yaml:4: watch[1]: 'loss' stands here twice"),
        ("watch: [{loss: 1}]", "s.yaml:4: watch[0]: {'loss': 1} is not the name of a quantity"),
        ("watch: 5", "s.yaml:4: watch: 5 is not a list of names"),
        ("watches: [loss]", "s.yaml:4: watches: unknown key 'watches' (did you mean watch"),
    ],
)
def test_faults_of_a_suite(tmp_path: Path, watch: str, problem: str) -> None:
    with pytest.raises(SuiteError) as caught:
        suite(tmp_path, watch)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(problem)


def test_names_and_epochs_that_nothing_can_show(tmp_path: Path) -> None:
    def planned(watch: str, **overrides: Any) -> list[str]:
        loaded = suite(tmp_path, f"training: {{epochs: 3}}\n{watch}"), load_suite(tmp_path / "s.yaml")[1]
        return make_plan(*loaded, Overrides(**overrides)).notes

    (note,) = planned("watch: [galery, losses]")
    assert note == "watch: no method here is known to show 'galery'; of every method: gallery, losses"
    assert planned("watch: [gallery]") == [] and planned("watch: {losses: [1, 3]}") == []
    assert planned("watch: [loss]") != [], "the word stands in the source of erm, but not as a name that is observed"
    inherited = "grids: [{methods: scan+dividemix}]\nwatch: [clean_set, loss]"
    assert planned(inherited) == [], "what dividemix shows, the method that is made of it shows too"
    with pytest.raises(SuiteError, match=r"s.yaml:5: watch.losses: no cell has an epoch 100 \(training.epochs is 3"):
        planned("watch: {losses: [1, 100]}")
    assert planned("watch: {losses: [1, 3]}", set={"training.epochs": 1}) == [], "a shorter run of a suite is no fault of it"


def test_what_is_watched_is_no_part_of_a_cell(tmp_path: Path) -> None:
    from bench.execute import job_of

    ids = []
    for watch in ("", "watch: {loss: all}"):
        suite(tmp_path, watch)
        plan = make_plan(*load_suite(tmp_path / "s.yaml"))
        job = job_of(plan, plan.entries[0], tmp_path, None, tmp_path, "inline", False)
        ids.append((plan.entries[0].id, job.options.watch))
    assert ids[0][0] == ids[1][0] and ids[0][1] == () and ids[1][1] == (("loss", "all"),)


def test_every_fault_is_told() -> None:
    assert len(parse({"a": "x", "b": 0, 3: None})[1]) == 3
