"""bench.trial.evaluate: metrics read off hand-written curves, scoring of a fake method, and who holds what out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import MLP, TINY_CNN, make_cell, plain_images
from torch import Tensor

from bench.data import Dataset, Loaded, Split, datasets, load
from bench.fields import FieldError
from bench.method import EpochMethod, method_class
from bench.trial.evaluate import Curve, Diverged, Evaluator, HeldOut, Protocol, Truth, metrics
from bench.trial.prepare import prepare
from bench.trial.runner import Options
from bench.trial.task import NeedError, Task


def curve(test: list, val: list | None = None, **more: Any) -> Curve:
    values = {"test_acc": test, **({"val_acc": val} if val is not None else {}), **more}
    groups = values.pop("group_acc", {})
    return Curve(list(range(len(test))), values, groups)


# --- curves


def test_a_curve_goes_through_a_dictionary_unchanged() -> None:
    made = Curve()
    made.append(0, {"test_acc": 0.5, "val_acc": 0.4}, {"a": 0.1, "b": 0.9})
    made.append(1, {"test_acc": 0.6, "val_acc": None}, {"a": 0.2, "b": 0.8})
    as_dict = made.as_dict()
    assert as_dict == {
        "epoch": [0, 1], "test_acc": [0.5, 0.6], "val_acc": [0.4, None],
        "group_acc": {"a": [0.1, 0.2], "b": [0.9, 0.8]},
    }  # fmt: skip
    again = Curve.from_dict(as_dict)
    assert again == made
    again.append(2, {"test_acc": 0.7, "val_acc": 0.5}, {"a": 0.3, "b": 0.7})
    assert made.as_dict() == as_dict  # a copy, not a view
    assert "group_acc" not in curve([0.5]).as_dict()


def test_values_stand_at_the_epoch_they_belong_to() -> None:
    """Names may appear late, stop, and come back: a method need not log in every epoch."""
    made = Curve()
    for epoch, log in enumerate([{}, {"kl": 1.0}, {}, {"kl": 3.0}]):
        made.append(epoch, {"test_acc": epoch / 10, **log}, {})
    assert made.as_dict() == {"epoch": [0, 1, 2, 3], "test_acc": [0.0, 0.1, 0.2, 0.3], "kl": [None, 1.0, None, 3.0]}


# --- metrics


def test_every_protocol_of_one_curve() -> None:
    result = metrics(curve([0.2, 0.6, 0.5, 0.4], [0.3, 0.4, 0.5, 0.1]), last_k=3)
    assert result == {
        "test_acc_last": 0.4, "test_acc_best_oracle": 0.6, "test_acc_selected": 0.5,
        "val_acc_last": 0.1, "val_acc_best_oracle": 0.4, "val_acc_selected": 0.5,
        "test_acc_last_k": pytest.approx(0.5), "val_acc_last_k": pytest.approx(1 / 3),
        "epoch_best_oracle": 1, "epoch_selected": 2,
    }  # fmt: skip


def test_ties_go_to_the_earliest_epoch() -> None:
    result = metrics(curve([0.1, 0.7, 0.7, 0.3], [0.5, 0.5, 0.2, 0.5]), last_k=1)
    assert (result["epoch_best_oracle"], result["epoch_selected"], result["test_acc_selected"]) == (1, 0, 0.1)


def test_last_k_of_a_shorter_curve_is_the_mean_of_all() -> None:
    assert metrics(curve([0.2, 0.4]), last_k=10)["test_acc_last_k"] == pytest.approx(0.3)
    assert metrics(curve([0.0] * 5 + [0.2] * 10), last_k=10)["test_acc_last_k"] == pytest.approx(0.2)
    assert metrics(curve([0.2, 0.8]), last_k=1)["test_acc_last_k"] == 0.8


def test_without_validation_nothing_is_selected() -> None:
    result = metrics(curve([0.2, 0.6]), last_k=1)
    assert not [name for name in result if "selected" in name or name.startswith("val_acc")]


def test_an_epoch_without_validation_value_is_never_selected() -> None:
    assert metrics(curve([0.9, 0.6, 0.5], [None, 0.0, 0.0]), last_k=1)["epoch_selected"] == 1


def test_groups_and_worst_group_are_read_at_the_chosen_epoch() -> None:
    made = curve(
        [0.8, 0.7, 0.6], [0.1, 0.3, 0.2], worst_group_acc=[0.2, 0.5, 0.6],
        group_acc={"a": [0.2, 0.9, 0.6], "b": [0.9, 0.5, 0.7]},
    )  # fmt: skip
    result = metrics(made, last_k=2)
    assert result["worst_group_acc_best_oracle"] == 0.2  # of the epoch with the best average, not the best worst group
    assert (result["worst_group_acc_selected"], result["worst_group_acc_last"]) == (0.5, 0.6)
    assert result["worst_group_acc_last_k"] == pytest.approx(0.55)
    assert result["group_acc_best_oracle"] == {"a": 0.2, "b": 0.9}
    assert result["group_acc_selected"] == {"a": 0.9, "b": 0.5} and result["group_acc_last"] == {"a": 0.6, "b": 0.7}


@pytest.mark.parametrize(("by", "epoch"), [("accuracy", 1), ("worst-group", 2), ("adjusted", 0)])
def test_what_selects_the_epoch(by: str, epoch: int) -> None:
    made = curve([0.1, 0.2, 0.3], [0.5, 0.6, 0.4], val_worst_group_acc=[0.1, 0.2, 0.3], val_adjusted_acc=[0.9, 0.8, 0.7])
    result = metrics(made, 1, by)
    assert result["epoch_selected"] == epoch and result["test_acc_selected"] == made.values["test_acc"][epoch]
    assert result["epoch_best_oracle"] == 2 and not [name for name in result if name.startswith("val_") and "group" in name]


def test_selection_by_accuracy_leaves_identities_alone() -> None:
    assert "select_by" not in Protocol.identity({}) and Protocol.identity({"select_by": "adjusted"})["select_by"] == "adjusted"
    assert metrics(curve([0.5], [0.5]), 1).get("epoch_selected") == 0
    assert "epoch_selected" not in metrics(curve([0.5], [0.5]), 1, "worst-group")  # no groups, nothing selected


def test_epochs_without_noise_auc() -> None:
    result = metrics(curve([0.9, 0.1, 0.2], [0.0, 0.5, 0.4], noise_auc=[None, 0.6, 0.8]), last_k=2)
    assert "noise_auc_best_oracle" not in result  # chosen in warm-up: there was no score yet
    assert (result["noise_auc_selected"], result["noise_auc_last"]) == (0.6, 0.8)
    assert result["noise_auc_last_k"] == pytest.approx(0.7)
    result = metrics(curve([0.9, 0.1], noise_auc=[None, 0.6]), last_k=2)
    assert "noise_auc_last_k" not in result  # the mean of the last two has a gap
    assert not [name for name in metrics(curve([0.9], noise_auc=[None]), last_k=1) if name.startswith("noise_auc")]


def test_an_empty_curve_has_no_metrics() -> None:
    assert metrics(Curve(), last_k=10) == {}


fractions = st.integers(0, 20).map(lambda n: n / 20)


@settings(deadline=None, database=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(fractions, fractions), min_size=1, max_size=30), st.integers(1, 40))
def test_properties_of_metrics(pairs: list[tuple[float, float]], last_k: int) -> None:
    test, val = [t for t, _ in pairs], [v for _, v in pairs]
    result = metrics(curve(test, val), last_k)
    assert result["test_acc_best_oracle"] == max(test) == test[result["epoch_best_oracle"]]
    assert max(test) not in test[: result["epoch_best_oracle"]]
    assert val[result["epoch_selected"]] == max(val) == result["val_acc_selected"]
    assert result["test_acc_selected"] == test[result["epoch_selected"]] <= result["test_acc_best_oracle"]
    assert result["test_acc_last"] == test[-1]
    assert min(test) - 1e-12 <= result["test_acc_last_k"] <= max(test) + 1e-12
    if last_k == 1:
        assert result["test_acc_last_k"] == test[-1]


# --- scoring


class Fake(EpochMethod):
    """Answers what it is told to, in the order validation, test; the first test image has the value 10."""

    slug = "fake-answers"

    def __init__(self, answers: Any, scores: Tensor | None = None) -> None:
        super().__init__()
        self.answers, self.scores = answers, scores
        self.task = SimpleNamespace(num_classes=3, num_samples=5)

    def predict(self, images: Tensor) -> Tensor:
        answers = torch.eye(3)[self.answers] if isinstance(self.answers, list) else self.answers
        if not isinstance(answers, Tensor) or len(answers) != 6:
            return answers
        return answers[:2] if float(images.flatten()[0]) < 10 else answers[2:]

    def clean_scores(self) -> Tensor | None:
        return self.scores


def held_out(labels: list[int], groups: list[int] | None = None, start: float = 0.0) -> HeldOut:
    images = torch.arange(start, start + len(labels)).view(-1, 1, 1, 1)
    source: Any = SimpleNamespace(plain=lambda: iter([images]))
    return HeldOut(source, np.array(labels), np.array(groups) if groups is not None else None)


CORRECT = np.array([True, False, True, True, False])


def evaluator(val: bool = True, groups: list[int] | None = None, names: tuple[str, ...] = ()) -> Evaluator:
    truth = Truth(CORRECT)
    return Evaluator(held_out([0, 1]) if val else None, held_out([0, 1, 2, 0], groups, 10.0), truth, names)


def test_accuracies_by_hand() -> None:
    method = Fake([0, 2, 0, 1, 2, 1])
    values, groups = evaluator().evaluate(method)
    assert values == {"test_acc": 0.75, "val_acc": 0.5, "noise_auc": None} and groups == {}
    values, _ = evaluator(val=False).evaluate(Fake([0, 1, 2, 1]))
    assert values == {"test_acc": 0.75, "noise_auc": None}


def test_group_accuracies_by_hand() -> None:
    values, groups = evaluator(groups=[0, 0, 1, 1], names=("left", "right")).evaluate(Fake([0, 1, 0, 2, 2, 1]))
    assert groups == {"left": 0.5, "right": 0.5} and values["worst_group_acc"] == 0.5
    values, groups = evaluator(groups=[0, 1, 1, 1], names=("left", "right")).evaluate(Fake([0, 1, 1, 1, 2, 1]))
    assert groups == {"left": 0.0, "right": pytest.approx(2 / 3)} and values["worst_group_acc"] == 0.0


def test_groups_of_the_validation_split_by_hand() -> None:
    """Groups 0, 0, 1 of validation are answered right, wrong, wrong; training has them in the shares 3/4 and 1/4."""
    val, test = held_out([0, 1, 0], [0, 0, 1]), held_out([0, 1, 2, 0], [0, 0, 1, 1], 10.0)
    judge = Evaluator(val, test, Truth(CORRECT, np.array([0, 0, 0, 1])), ("left", "right"))

    class Seven(Fake):
        def predict(self, images: Tensor) -> Tensor:
            return torch.eye(3)[[0, 2, 1]] if float(images.flatten()[0]) < 10 else torch.eye(3)[[0, 1, 2, 1]]

    values, groups = judge.evaluate(Seven(None))
    assert values["val_acc"] == pytest.approx(1 / 3)
    assert (values["val_worst_group_acc"], values["val_adjusted_acc"]) == (0.0, pytest.approx(0.5 * 3 / 4))
    assert groups == {"left": 1.0, "right": 0.5} and values["worst_group_acc"] == 0.5  # those of the test split


def test_a_group_without_test_images_has_no_accuracy() -> None:
    values, groups = evaluator(groups=[0, 0, 2, 2], names=("a", "b", "c")).evaluate(Fake([0, 1, 0, 1, 2, 1]))
    assert groups == {"a": 1.0, "c": 0.5} and values["worst_group_acc"] == 0.5


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (torch.zeros(5, 3), r"\(5, 3\)"), (torch.zeros(4), r"\(4,\)"), (torch.zeros(3, 3), r"\(3, 3\)"),
        (torch.zeros(4, 3, 1), r"\(4, 3, 1\)"), (torch.zeros(4, 2), r"\(4, 2\)"), (None, "NoneType"),
        (np.zeros((4, 3)), "ndarray"),
    ],
)  # fmt: skip
def test_wrong_shapes_are_named(answer: Any, got: str) -> None:
    words = r"fake-answers.predict must return probabilities of shape \(4, 3\), got " + got
    with pytest.raises(ValueError, match=words):
        evaluator(val=False).evaluate(Fake(answer))


def test_a_method_may_not_write_into_the_images_it_is_given() -> None:
    class Painter(Fake):
        def predict(self, images: Tensor) -> Tensor:
            images[0] = 17.0
            return super().predict(images)

    with pytest.raises(ValueError, match="wrote into the images"):
        evaluator().evaluate(Painter([0, 2, 0, 1, 2, 1]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_not_finite_are_divergence(bad: float) -> None:
    answer = torch.eye(3)[[0, 1, 0, 1, 2, 1]]
    answer[3, 2] = bad
    with pytest.raises(Diverged, match="not finite"):
        evaluator().evaluate(Fake(answer))


def auc(scores: Any) -> float | None:
    return evaluator().evaluate(Fake([0] * 6, torch.as_tensor(scores)))[0]["noise_auc"]


def test_noise_auc_by_hand() -> None:
    """Three right labels against two wrong ones: the share of the six pairs in which the right one scores higher."""
    assert auc([5.0, 1.0, 4.0, 3.0, 2.0]) == 1.0
    assert auc([1.0, 5.0, 2.0, 3.0, 4.0]) == 0.0
    assert auc([5.0, 3.0, 4.0, 1.0, 2.0]) == pytest.approx(4 / 6)
    assert auc([1.0] * 5) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_noise_auc_is_that_of_scikit_learn(seed: int) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.Generator(np.random.PCG64(seed))
    correct, scores = rng.random(200) < 0.6, rng.integers(0, 12, 200) / 12  # with ties
    judge = Evaluator(None, held_out([0, 1, 2, 0], None, 10.0), Truth(correct))
    method = Fake([0, 1, 2, 0], torch.tensor(scores))
    method.task.num_samples = 200
    values, _ = judge.evaluate(method)
    assert values["noise_auc"] == pytest.approx(roc_auc_score(correct, scores))


def test_noise_auc_is_missing_without_scores_or_noise() -> None:
    assert auc([1.0, math.nan, 0.0, 0.0, 0.0]) is None  # not every sample has been scored yet
    judge = Evaluator(None, held_out([0], None, 10.0), Truth(np.array([True, True])))
    method = Fake([0], torch.tensor([0.1, 0.2]))
    method.task.num_samples = 2
    assert judge.evaluate(method)[0]["noise_auc"] is None
    with pytest.raises(ValueError, match=r"clean_scores must have shape \(5,\), got \(4,\)"):
        auc([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    "params", [{"val_fraction": 1.0}, {"val_fraction": -0.1}, {"last_k": 0}, {"validation": "clean"}]
)
def test_protocols_are_checked(params: dict[str, Any]) -> None:
    with pytest.raises(FieldError, match=next(iter(params))):
        Protocol(**params)


# --- who holds what out


def prepared(method: str = "erm", **axes: Any) -> tuple[Task, Evaluator, dict[str, Any]]:
    """Task, evaluator and record of a cell, before training."""
    cell = make_cell(method, **axes)
    record: dict[str, Any] = {"id": "0" * 16, "warnings": []}
    made = method_class(method)(**cell["method"]["params"])
    task, judge = prepare(cell, Options("suite"), made, Protocol(**cell["protocol"]), record)
    return task, judge, record


def held_images(held: HeldOut | None) -> Tensor:
    assert held is not None
    return torch.cat(list(held.images.plain()))


def train_images(task: Task) -> Tensor:
    return torch.cat(list(task._images.plain()))


def rows(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_the_noisy_hold_out() -> None:
    task, judge, record = prepared(noise="symmetric@0.8")
    data = load({"name": "digits"})
    train, val = rows(plain_images(task)), rows(held_images(judge._val))
    source = rows(task.normalise(torch.as_tensor(data.train.images)))
    assert not set(train) & set(val) and sorted(train + val) == sorted(source)
    # of 143, 146, 142, 147, 145, 146, 145, 144, 140, 144: 14 + 15 + 14 + 15 + 14 (half to even) + 15 + 4 x 14
    assert (len(train), len(val)) == (record["data"]["n_train"], record["data"]["n_val"]) == (1299, 143)
    assert record["data"]["validation"] == "hold-out, noisy labels" and record["data"]["n_test"] == 355
    # its labels are the given ones: most of them are wrong
    true = data.train.labels[[source.index(image) for image in val]]
    assert (judge._val.labels.numpy() != true).mean() > 0.5
    # stratified by true class: a tenth of each
    assert np.bincount(true).tolist() == [round(0.1 * n) for n in np.bincount(data.train.labels)]
    # the test labels are true
    assert judge._test.labels.tolist() == data.test.labels.tolist()
    assert rows(held_images(judge._test)) == rows(task.normalise(torch.as_tensor(data.test.images)))


def test_selecting_by_groups_needs_validation_data_that_has_them() -> None:
    for validation, kind in (("auto", "official, true labels"), ("noisy", "hold-out, noisy labels")):
        protocol = {"select_by": "worst-group", "validation": validation}
        _, judge, record = prepared(dataset="spurious-digits", noise="uniform-flip@0.3", protocol=protocol)
        assert judge._val is not None and judge._val.groups is not None
        assert judge._val.groups.bincount(minlength=4).min() > 0 and len(judge._val.groups) == record["data"]["n_val"]
        assert record["data"]["validation"] == kind + ", worst-group accuracy"
    for axes in ({}, {"dataset": "spurious-digits", "protocol": {"validation": "noisy", "val_fraction": 0.0}}):
        protocol = {"select_by": "adjusted", **axes.pop("protocol", {})}
        with pytest.raises(FieldError, match="protocol.select_by"):
            prepared(noise="none", protocol=protocol, **axes)


def test_the_split_is_the_same_for_all_noises_methods_models_and_trainings() -> None:
    reference = held_images(prepared()[1]._val)
    for axes in (
        {"noise": "none"}, {"noise": "asymmetric@0.2"}, {"method": "dividemix"}, {"model": MLP},
        {"training": {"epochs": 5, "batch_size": 7}}, {"protocol": {"last_k": 3}},
    ):  # fmt: skip
        assert torch.equal(held_images(prepared(**axes)[1]._val), reference)
    assert not torch.equal(held_images(prepared(seed=1)[1]._val), reference)


def test_a_fraction_of_the_training_set_is_drawn_by_class_from_what_is_not_held_out() -> None:
    whole, judge, record = prepared()
    part, other, few = prepared(protocol={"train_fraction": 0.25})
    assert torch.equal(held_images(judge._val), held_images(other._val)), "validation stays what it was"
    counts = torch.zeros(10).index_add(0, torch.as_tensor(judge._truth.true), torch.ones(whole.num_samples))
    found = torch.zeros(10).index_add(0, torch.as_tensor(other._truth.true), torch.ones(part.num_samples))
    assert torch.equal(found, (counts / 4).round()) and few["data"]["n_train"] == part.num_samples == int(found.sum())
    again, *_ = prepared("gce", noise="none", protocol={"train_fraction": 0.25})
    assert torch.equal(train_images(again), train_images(part)), "the same images for every method and noise"
    assert not torch.equal(train_images(prepared(seed=1, protocol={"train_fraction": 0.25})[0])[:9], train_images(part)[:9])
    assert set(rows(train_images(part))) < set(rows(train_images(whole)))
    assert Protocol.identity({"train_fraction": 1.0}) == Protocol.identity({})
    with pytest.raises(FieldError, match="train_fraction"):
        Protocol(train_fraction=0.0)


def test_noise_and_weights_are_paired_over_methods() -> None:
    """Law 4: methods of a seed see the same labels, split and initial weights, whatever model and training are."""
    one, _, record = prepared("erm", model=TINY_CNN)
    two, _, other = prepared("co-teaching", model=TINY_CNN, training={"lr": 0.3, "batch_size": 8})
    three, _, third = prepared("elr", model=MLP)
    assert record["noise"]["sha256"] == other["noise"]["sha256"] == third["noise"]["sha256"]
    assert torch.equal(one.labels, two.labels) and torch.equal(one.labels, three.labels)
    for a, b in zip(one.learner("a").network.parameters(), two.learner("a").network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert prepared(seed=1)[2]["noise"]["sha256"] != record["noise"]["sha256"]


def test_the_noise_rate_that_is_granted_is_that_of_the_training_part() -> None:
    task, _, record = prepared("co-teaching", protocol={"val_fraction": 0.3})
    data = load({"name": "digits"})
    source = dict(zip(rows(torch.as_tensor(data.train.images)), data.train.labels, strict=True))
    true = np.array([source[image] for image in rows(task._images._images)])
    measured = float((task.labels.numpy() != true).mean())
    assert task.noise_rate == pytest.approx(measured) == record["noise"]["train_rate"]
    assert 0.4 < measured < 0.5 and measured != record["noise"]["rate"]
    with pytest.raises(NeedError):
        _ = prepared("erm")[0].noise_rate


def test_a_task_holds_no_privileged_information_but_what_is_needed() -> None:
    spurious = {"dataset": "spurious-digits", "noise": "uniform-flip@0.3"}
    assert set(prepared("co-teaching", **spurious)[0]._granted) == {"noise_rate"}
    assert prepared("erm", **spurious)[0]._granted == {}


def test_an_official_validation_split_has_true_labels() -> None:
    _, judge, record = prepared(dataset="spurious-digits", noise="uniform-flip@0.4")
    data = load(make_cell(dataset="spurious-digits", noise="none")["dataset"])
    assert data.val is not None and judge._val.labels.tolist() == data.val.labels.tolist()
    assert record["data"]["validation"] == "official, true labels"
    assert (record["data"]["n_train"], record["data"]["n_val"]) == (len(data.train), len(data.val))
    assert record["data"]["groups"] == list(data.group_names or ())


def test_a_protocol_can_insist_on_a_noisy_hold_out() -> None:
    protocol = {"validation": "noisy", "val_fraction": 0.2}
    _, judge, record = prepared(dataset="spurious-digits", noise="uniform-flip@0.4", protocol=protocol)
    assert record["data"]["validation"] == "hold-out, noisy labels"
    total = record["data"]["n_train"] + record["data"]["n_val"]
    assert record["data"]["n_val"] == len(judge._val.labels) == pytest.approx(total / 5, abs=1)


@pytest.mark.parametrize("dataset", ["digits", "spurious-digits"])
def test_without_a_hold_out_there_is_no_validation(dataset: str) -> None:
    """Least of all the official one, where the protocol asks for noisy labels."""
    _, judge, record = prepared(dataset=dataset, noise="none", protocol={"validation": "noisy", "val_fraction": 0})
    assert judge._val is None and record["data"]["validation"] is None and record["data"]["n_val"] == 0


def test_a_method_that_needs_validation_is_refused_without() -> None:
    with pytest.raises(NeedError, match="'gce' needs validation, but protocol.val_fraction is 0"):
        prepared("gce", params={"truncated": True}, protocol={"val_fraction": 0})
    assert prepared("gce", protocol={"val_fraction": 0})[1]._val is None  # the plain form needs none


def test_a_class_with_few_samples_is_split_by_rounding() -> None:
    class Few(Dataset):
        slug = "few"

        def load(self, root: Any) -> Loaded:
            labels = np.repeat([0, 1, 2], [20, 6, 2])
            images = np.arange(28, dtype=np.uint8).reshape(28, 1, 1, 1)
            split = Split(images, labels)
            return Loaded(train=split, test=split, class_names=("a", "b", "c"))

    with patch.dict(datasets(), {"few": Few}):
        _, judge, _ = prepared(dataset="few", noise="none", model=MLP)
    assert judge._val.labels.tolist() == [0, 0, 1]


# --- what goes beyond one accuracy


def scored(answers: Tensor, **rest: Any) -> Fake:
    method = Fake(answers)
    method.task.num_classes = answers.shape[1]
    method.predict = lambda images: answers  # type: ignore[method-assign]
    return method


def test_top_5_and_the_second_test_set_by_hand() -> None:
    """Seven classes, ranked 0, 1, 2, ... for every image: labels 0 to 4 are among the first five."""
    answers = torch.linspace(7, 1, 7).repeat(4, 1)
    judge = Evaluator(
        None, held_out([0, 4, 5, 6], None, 10.0), Truth(None), test2=held_out([1, 0, 2, 6], None, 10.0), top_k=5, num_classes=7
    )
    values, _ = judge.evaluate(scored(answers))
    assert (values["test_acc"], values["test_top5_acc"]) == (0.25, 0.5)
    assert (values["test2_acc"], values["test2_top5_acc"]) == (0.25, 0.75)
    assert values["noise_auc"] is None


def test_top_5_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.Generator(np.random.PCG64(0))
    labels, answers = rng.integers(0, 9, 50), rng.random((50, 9))
    judge = Evaluator(None, held_out(labels.tolist(), None, 10.0), Truth(None), top_k=5, num_classes=9)
    values, _ = judge.evaluate(scored(torch.tensor(answers)))
    assert values["test_top5_acc"] == pytest.approx(top_k_accuracy_score(labels, answers, k=5, labels=range(9)))


def test_the_adjusted_average_weights_groups_as_in_training() -> None:
    """Test accuracies 1/2 and 1; training has three images of the first group and one of the second."""
    truth = Truth(None, np.array([0, 0, 0, 1]))
    judge = Evaluator(None, held_out([0, 1, 2, 0], [0, 0, 1, 1], 10.0), truth, ("a", "b"))
    values, _ = judge.evaluate(scored(torch.eye(3)[[0, 0, 2, 0]]))
    assert values["test_acc"] == 0.75 and values["adjusted_acc"] == pytest.approx(0.75 * 0.5 + 0.25 * 1.0)


def test_the_confusion_matrix_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix

    rng = np.random.Generator(np.random.PCG64(1))
    labels, predicted = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    judge = Evaluator(None, held_out(labels.tolist(), None, 10.0), Truth(None), num_classes=3)
    method = scored(torch.eye(3)[predicted.tolist()])
    judge.evaluate(method)
    matrix = confusion_matrix(labels, predicted)
    detail = judge.detail(method)
    assert detail["confusion_last"] == matrix.tolist()
    assert detail["class_acc_last"] == pytest.approx((matrix.diagonal() / matrix.sum(axis=1)).tolist())


def test_noise_auc_per_group_by_hand() -> None:
    """In the first group the right label scores higher, in the second lower, the third has no wrong label."""
    correct, groups = np.array([True, False, True, False, True]), np.array([0, 0, 1, 1, 2])
    judge = Evaluator(None, held_out([0, 1, 2], [0, 1, 2], 10.0), Truth(correct, groups), ("a", "b", "c"), num_classes=3)
    method = scored(torch.eye(3))
    method.scores = torch.tensor([2.0, 1.0, 1.0, 2.0, 0.0])
    judge.evaluate(method)
    assert judge.detail(method)["group_noise_auc_last"] == {"a": 1.0, "b": 0.0, "c": None}
