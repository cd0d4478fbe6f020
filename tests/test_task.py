"""bench.trial.task: what a method is given, in which order, from which random streams; and what it is refused."""

from __future__ import annotations

import random
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import MLP, make_task, pixels, plain_images
from torch import Tensor

from bench.ops import augment
from bench.training import Training
from bench.trial import task as task_module
from bench.trial.images import RESIDENT_BLOCK as BLOCK
from bench.trial.images import ViewSettings
from bench.trial.task import MEASURED, Batch, NeedError, Task, TimeLimit


def begun(count: int = 20, epoch: int = 0, **settings: Any) -> Task:
    task = make_task(torch.arange(count) % 3, **settings)
    task.start_epoch(epoch)
    return task


def order(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch.index]


def views(batches: Any, number: int = 0) -> Tensor:
    return torch.cat([batch.views[number] for batch in batches])


def plain(task: Task, images: Tensor, index: Tensor) -> Tensor:
    return (images[index].float() / 255 - 0.5) / 0.25


# --- batches


@settings(deadline=None, database=None, derandomize=True, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 40), st.booleans())
def test_every_sample_comes_once_per_pass(count: int, size: int, shuffle: bool) -> None:
    task = begun(count, training={"batch_size": size})
    batches = list(task.batches(("plain",), shuffle=shuffle))
    assert [len(batch) for batch in batches] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert sorted(order(batches)) == list(range(count))
    if not shuffle:
        assert order(batches) == list(range(count))
    for batch in batches:
        assert batch.index.dtype == torch.int64 and torch.equal(batch.labels, batch.index % 3)
        assert torch.equal(batch.images, batch.views[0]) and batch.images.shape == (len(batch), 1, 6, 6)


def test_the_task_says_what_it_is() -> None:
    task = begun(20, epoch=2, training={"epochs": 7, "batch_size": 8})
    assert (task.num_samples, task.num_classes, task.epochs, task.batch_size, task.current_epoch) == (20, 3, 7, 8, 2)
    assert isinstance(task.training, Training) and task.device == torch.device("cpu")


def test_a_batch_size_of_ones_own() -> None:
    task = begun(20, training={"batch_size": 8})
    assert [len(batch) for batch in task.batches(batch_size=16)] == [16, 4]


def test_a_subset_keeps_its_indices_and_labels() -> None:
    task = begun(20)
    chosen = torch.tensor([3, 17, 5, 8, 11])
    batches = list(task.batches(("plain",), indices=chosen, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert sorted(order(batches)) == sorted(chosen.tolist()) and order(batches) != chosen.tolist()
    assert all(torch.equal(batch.labels, batch.index % 3) for batch in batches)
    assert order(task.batches(indices=chosen, shuffle=False)) == chosen.tolist()
    assert list(task.batches(indices=chosen[:0])) == []


@pytest.mark.parametrize("size", [64, 100, 3000])
def test_block_boundaries_do_not_show(size: int) -> None:
    """Images are augmented in blocks of about 2 048; batches, labels and views stay those of their index."""
    count = 2 * BLOCK + 37
    images = pixels(count, size=2)
    task = make_task(torch.arange(count) % 7, images=images, num_classes=7, training={"batch_size": size}, pad=0)
    task.start_epoch(0)
    batches = list(task.batches(("plain", "weak")))
    assert [len(batch) for batch in batches] == [size] * (count // size) + [count % size]
    assert sorted(order(batches)) == list(range(count))
    for batch in batches:
        expected = plain(task, images, batch.index)
        torch.testing.assert_close(batch.views[0], expected)
        torch.testing.assert_close(batch.views[1], expected)  # without padding or flip a weak view is the plain one
        assert torch.equal(batch.labels, batch.index % 7)


# --- random streams (law 5)


def test_two_methods_see_the_same_order_and_crops() -> None:
    first, second = (
        begun(50, method=name, training={"batch_size": size, "lr": lr}, model=model)
        for name, size, lr, model in (("one", 8, 0.1, None), ("two", 8, 0.2, MLP))
    )
    a, b = list(first.batches(("weak", "strong"))), list(second.batches(("weak", "strong")))
    assert order(a) == order(b)
    assert torch.equal(views(a), views(b)) and torch.equal(views(a, 1), views(b, 1))


def test_order_does_not_depend_on_views_batch_size_or_labels() -> None:
    reference = order(begun(50).batches())
    assert reference == order(begun(50).batches(("plain", "strong"), batch_size=7))
    task = make_task(torch.zeros(50, dtype=torch.int64))
    task.start_epoch(0)
    assert reference == order(task.batches())


def test_crops_do_not_depend_on_the_batch_size() -> None:
    assert torch.equal(views(begun(50).batches(batch_size=8)), views(begun(50).batches(batch_size=50)))


def test_order_and_crops_differ_by_epoch_loop_and_seed() -> None:
    def pass_of(epoch: int = 0, loop: int = 0, seed: int = 0) -> tuple[tuple[int, ...], bytes]:
        task = begun(50, epoch, seed=seed)
        for _ in range(loop):
            list(task.batches())
        batches = list(task.batches())
        restored = torch.empty(50, 1, 6, 6)
        restored[torch.cat([batch.index for batch in batches])] = views(batches)
        return tuple(order(batches)), restored.numpy().tobytes()

    keys: list[dict[str, int]] = [{}, {"epoch": 1}, {"epoch": 2}, {"loop": 1}, {"loop": 2}, {"seed": 1}]
    found = [pass_of(**key) for key in keys]
    assert len({orders for orders, _ in found}) == len({crops for _, crops in found}) == len(keys)
    assert pass_of(**keys[3]) == found[3]
    # an epoch is the same whether or not other epochs were run before: that is what makes resuming exact
    task = begun(50)
    list(task.batches())
    task.start_epoch(1)
    assert tuple(order(task.batches())) == found[1][0]


def test_method_streams_are_fresh_in_every_epoch_and_apart_by_name() -> None:
    def draw(task: Task, name: str = "method") -> list[float]:
        return torch.rand(3, generator=task.generator(name)).tolist()

    task = begun(10)
    first, second = draw(task), draw(task)
    assert first != second  # one stream within an epoch
    assert draw(begun(10)) == first and draw(begun(10), "mix") != first
    task.start_epoch(1)
    assert draw(task) == draw(begun(10, epoch=1)) != first
    assert draw(begun(10, seed=1)) != first and draw(begun(10, method="other")) != first


def test_global_generators_are_neither_read_nor_moved() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        task = begun(40, flip=True)
        net = task.learner()
        batches = list(task.batches(("weak", "strong")))
        net.step(net(batches[0].images).square().mean())
        found.append((order(batches), views(batches), views(batches, 1), task.logits(net),
                      torch.rand(2, generator=task.generator())))  # fmt: skip
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1:], found[1][1:], strict=True))


def test_layers_draw_from_a_stream_of_their_own() -> None:
    """Dropout knows only the global generator: it is seeded for the epoch and put back, also after an error."""

    def draw(task: Task) -> list[float]:
        with task.layer_randomness():
            return torch.rand(3).tolist()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = draw(begun())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert draw(begun()) == first == draw(begun(method="other"))
    assert draw(begun(epoch=1)) != first and draw(begun(seed=1)) != first
    before = torch.get_rng_state()
    with pytest.raises(KeyError), begun().layer_randomness():
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


# --- cycle


def test_a_cycle_shuffles_every_pass_anew() -> None:
    task = begun(20)
    chosen = torch.arange(0, 20, 2)
    batches = list(islice(task.cycle(indices=chosen, batch_size=4), 9))
    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    passes = [order(batches[start : start + 3]) for start in (0, 3, 6)]
    assert all(sorted(each) == chosen.tolist() for each in passes)
    assert passes[0] != passes[1] != passes[2]


def test_nothing_cannot_be_cycled() -> None:
    with pytest.raises(ValueError, match="empty set"):
        next(begun().cycle(indices=torch.empty(0, dtype=torch.int64)))


# --- views


def test_views_of_crop_flip() -> None:
    images = pixels(40)
    task = begun(40, images=images, pad=2, training={"batch_size": 40})
    batch = next(task.batches(("plain", "weak", "weak", "strong")))
    p, w1, w2, s = batch.views
    torch.testing.assert_close(p, plain(task, images, batch.index))
    assert not torch.equal(w1, w2) and not torch.equal(w1, p) and not torch.equal(s, w1)
    # every weak view is one of the 5 x 5 crops of its zero-padded image, and not always the middle one
    padded = torch.nn.functional.pad(images[batch.index].float(), (2, 2, 2, 2))
    crops = torch.stack([padded[..., y : y + 6, x : x + 6] for y in range(5) for x in range(5)])
    crops = (crops / 255 - 0.5) / 0.25
    where = (w1[None] - crops).abs().amax(dim=(2, 3, 4)) < 1e-4
    assert where.any(dim=0).all() and len(where.float().argmax(dim=0).unique()) > 10


def test_views_without_augmentation() -> None:
    task = begun(40, pad=2, flip=True, training={"augment": "none"})
    batch = next(task.batches(("plain", "weak", "strong")))
    assert torch.equal(batch.views[0], batch.views[1])  # the weak view is the plain image
    assert not torch.equal(batch.views[0], batch.views[2])


@pytest.mark.parametrize("crops", ["crop-flip", "none"])
def test_the_strong_view_is_that_of_the_ops(monkeypatch: pytest.MonkeyPatch, crops: str) -> None:
    asked = []

    def strong(images: Tensor, **settings: Any) -> Tensor:
        asked.append({key: value for key, value in settings.items() if key != "generator"})
        return images

    monkeypatch.setattr(augment, "strong", strong)
    list(begun(4, pad=2, flip=True, training={"augment": crops}).batches(("strong",)))
    # a cut-out square is grey: 0.5 of 255; without augmentation neither crop nor flip
    assert asked == [{"pad": 2 if crops == "crop-flip" else 0, "flip": crops == "crop-flip", "fill": (128,)}]


def test_unknown_views_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown view 'weaker'; valid: plain, weak, strong"):
        list(begun().batches(("weaker",)))


def test_view_settings_grey() -> None:
    assert ViewSettings(1, False, (0.0, 0.5, 1.0), (1.0,) * 3).fill == (0, 128, 255)


def test_full_passes_are_in_index_order() -> None:
    images = pixels(30)
    task = begun(30, images=images)
    net = task.learner()
    expected = plain(task, images, torch.arange(30))
    torch.testing.assert_close(plain_images(task), expected)
    torch.testing.assert_close(task.logits(net), net.infer(expected))
    torch.testing.assert_close(task.features(net), net.features(expected))
    assert net.forward_images == 4 * 30


def test_normalise() -> None:
    task = begun(4)
    assert task.normalise(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)).flatten().tolist() == (
        pytest.approx([-2.0, -1.2, 2.0])
    )


# --- learners


def test_learners_have_names_of_their_own() -> None:
    task = begun()
    task.learner("a")
    with pytest.raises(ValueError, match="learner 'a' exists already"):
        task.learner()
    assert task.learner("b").training is task.training


def test_start_epoch_reaches_all_learners() -> None:
    task = begun(training={"lr": 0.1, "schedule": "multistep", "milestones": (2,)})
    nets = [task.learner("a"), task.learner("b")]
    task.start_epoch(2)
    assert [net.optimizer.param_groups[0]["lr"] for net in nets] == [pytest.approx(0.01)] * 2


# --- needs (law 3)

GRANTED = {
    "noise_rate": 0.25, "transition_matrix": torch.eye(3), "groups": torch.zeros(20, dtype=torch.int64),
    "trusted": torch.arange(3),
}  # fmt: skip


@pytest.mark.parametrize("need", sorted(GRANTED))
def test_needs_are_granted_when_declared(need: str) -> None:
    assert getattr(begun(needs=frozenset({need}), granted=GRANTED), need) is GRANTED[need]


@pytest.mark.parametrize("need", sorted(GRANTED))
def test_needs_are_refused_when_not_declared(need: str) -> None:
    task = begun(needs=frozenset(set(GRANTED) - {need}), granted=GRANTED)
    for reach in (lambda: getattr(task, need), lambda: hasattr(task, need), lambda: getattr(task, need, None)):
        with pytest.raises(NeedError, match=f"'some-method' read task.{need} without declaring it"):
            reach()


def test_a_need_that_the_data_cannot_meet_is_an_error() -> None:
    with pytest.raises(NeedError, match="needs groups, which this data set does not have"):
        _ = begun(needs=frozenset({"groups"})).groups


@pytest.mark.parametrize(
    "name", ["clean_labels", "true_labels", "clean", "test", "val", "validation_labels", "test_labels", "evaluator"]
)
def test_true_labels_and_held_out_data_are_refused(name: str) -> None:
    """Also where a method would try quietly, with hasattr or a default."""
    task = begun(needs=frozenset(GRANTED), granted=GRANTED)
    for reach in (lambda: getattr(task, name), lambda: hasattr(task, name), lambda: getattr(task, name, None)):
        with pytest.raises(NeedError, match=f"reached for task.{name}.*belong to the evaluator"):
            reach()


def test_other_missing_names_are_ordinary_attribute_errors() -> None:
    task = begun()
    assert not hasattr(task, "lables")
    with pytest.raises(AttributeError, match="a task has no attribute 'lables'"):
        _ = task.lables


# --- log


def test_the_log_holds_means_of_an_epoch() -> None:
    task = begun()
    for value in (1.0, torch.tensor(2.0), 6):
        task.log("x", value)
    task.log("y", torch.tensor(0.5, dtype=torch.float64))
    assert task.epoch_log() == {"x": 3.0, "y": 0.5}
    task.start_epoch(1)
    assert task.epoch_log() == {}


def test_learners_log_their_losses() -> None:
    task = begun()
    nets = [task.learner("a"), task.learner("b")]
    losses = [net(plain_images(task)).square().mean() for net in nets]
    for net, loss in zip(nets, losses, strict=True):
        net.step(loss)
    assert task.epoch_log() == {"train_loss": pytest.approx(float(sum(losses).detach()) / 2)}


def test_logging_does_not_wait_for_the_device() -> None:
    """On the meta device every read of a value raises."""
    task = begun()
    for _ in range(3):
        task.log("x", torch.ones((), device="meta"))
    total, count = task._log["x"]
    assert total.device.type == "meta" and count == 3


def test_a_logged_value_does_not_keep_its_graph() -> None:
    task = begun()
    task.log("x", torch.ones((), requires_grad=True) * 2)
    assert not task._log["x"][0].requires_grad


@pytest.mark.parametrize("name", MEASURED)
def test_a_method_cannot_log_what_the_harness_measures(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot write '{name}'"):
        begun().log(name, 1.0)


# --- the deadline


@pytest.mark.parametrize("use", ["batches", "logits", "features"])
def test_a_passed_deadline_ends_the_cell(monkeypatch: pytest.MonkeyPatch, use: str) -> None:
    now = [100.0]
    monkeypatch.setattr(task_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    task = begun(time_limit=30.0)
    net = task.learner()
    reach: Any = {"batches": lambda: list(task.batches()), "logits": lambda: task.logits(net),
                  "features": lambda: task.features(net)}[use]  # fmt: skip
    now[0] = 130.0
    reach()
    now[0] = 130.1
    with pytest.raises(TimeLimit, match="exceeded the time limit of 30 s"):
        reach()


def test_no_deadline_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    task = begun()
    monkeypatch.setattr(task_module, "time", SimpleNamespace(monotonic=lambda: 1e12))
    assert len(list(task.batches())) > 0


def test_a_batch_has_a_length_and_a_first_view() -> None:
    batch = Batch(torch.arange(2), torch.arange(2), (torch.zeros(2, 1), torch.ones(2, 1)))
    assert len(batch) == 2 and batch.images is batch.views[0]


@pytest.mark.parametrize("count", [5, 4100])
def test_a_full_pass_over_images_too_many_to_keep_gives_the_same_bits(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, parts = make_task(torch.arange(count) % 3), make_task(torch.arange(count) % 3)
    whole = kept.full_pass(kept.learner())
    monkeypatch.setattr("bench.trial.images.KEPT_BYTES", 0)
    images = list(parts.plain_images())
    assert [len(part) for part in images] == ([2048, 2048, 4] if count > 2048 else [5])
    assert all(torch.equal(a, b) for a, b in zip(whole, parts.full_pass(parts.learner()), strict=True))
