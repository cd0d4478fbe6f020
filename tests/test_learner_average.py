"""Networks beside the trained one: moving averages, further modules of a method, and one full pass for everything."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import MLP, TINY_CNN, equal, make_cell, make_task, plain_images, snapshot
from torch import Tensor, nn

from bench.learner import Average, Learner
from bench.method import EpochMethod
from bench.trial.runner import Options, run_cell
from bench.trial.task import FullPass, Task


def some_task(count: int = 20, **settings: Any) -> Task:
    training = {"batch_size": 5, "lr": 0.1, **settings.pop("training", {})}
    task = make_task(torch.arange(count) % 3, training=training, **settings)
    task.start_epoch(0)
    return task


def head(width: int) -> dict[str, nn.Module]:
    return {"head": nn.Sequential(nn.Linear(width, 4), nn.BatchNorm1d(4))}


def train(task: Task, net: Learner, epochs: int = 1) -> None:
    for _ in range(epochs):
        for batch in task.batches():
            logits, features = net.with_features(batch.images)
            loss = F.cross_entropy(logits, batch.labels)
            net.step(loss + net.extra["head"](features).square().mean() if "head" in net.extra else loss)


def weights(net: Any) -> list[Tensor]:
    return [p.detach().clone() for p in (*net.network.parameters(), *net.extra.parameters())]


def buffers(net: Any) -> list[Tensor]:
    return [b.clone() for b in (*net.network.buffers(), *net.extra.buffers())]


def all_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- averages


def test_an_average_follows_weights_and_not_statistics() -> None:
    task = some_task()
    net = task.learner(extra=head)
    average = task.average(net)
    assert all_equal(weights(average), weights(net)) and all_equal(buffers(average), buffers(net))
    train(task, net)
    old, statistics = weights(average), buffers(average)
    average.update(0.75)
    for mine, before, theirs in zip(weights(average), old, weights(net), strict=True):
        torch.testing.assert_close(mine, 0.75 * before + 0.25 * theirs, rtol=1e-6, atol=1e-7)
    assert not all_equal(weights(average), old) and not all_equal(statistics, buffers(net))
    assert all_equal(buffers(average), statistics)
    average.update(0.75, buffers=True)
    assert all_equal(buffers(average), buffers(net))
    average.update(0.0)
    assert all_equal(weights(average), weights(net))
    train(task, net)
    before = weights(average)
    average.update(1.0)
    assert all_equal(weights(average), before)


def test_decay_worked_by_hand() -> None:
    """Weights 1 and 3: 0.9 and 0.1 of them are 1.2; again 1.38."""
    task = some_task(model=MLP)
    net, average = (network := task.learner()), task.average(network)
    with torch.no_grad():
        net.network.head.bias.fill_(3.0), average.network.head.bias.fill_(1.0)
    average.update(0.9)
    assert average.network.head.bias.tolist() == pytest.approx([1.2] * 3)
    average.update(0.9)
    assert average.network.head.bias.tolist() == pytest.approx([1.38] * 3)


def test_an_average_can_start_from_other_initial_weights() -> None:
    task = some_task()
    net = task.learner("a")
    other = task.average(net, "b")
    assert equal(other.network.state_dict(), snapshot(some_task().learner("b")))
    assert not all_equal(weights(other), weights(net))
    assert equal(other.network.state_dict(), some_task(method="another").average(task.learner("c"), "b").network.state_dict())


def test_passes_of_an_average_have_no_gradient_and_its_own_statistics() -> None:
    task = some_task()
    net = task.learner()
    average = task.average(net)
    batch = next(task.batches())
    theirs, mine = buffers(net), buffers(average)
    logits, (again, features) = average(batch.images), average.with_features(batch.images)
    assert average.network.training and not logits.requires_grad and not features.requires_grad
    assert torch.equal(logits, again) and torch.equal(logits, net(batch.images)), "batch statistics, as the learner's"
    average_after = buffers(average)
    assert not all_equal(average_after, mine) and not all_equal(buffers(net), theirs)
    average.infer(batch.images), average.full(batch.images)
    assert all_equal(buffers(average), average_after) and not average.network.training
    assert net.network.training, "the learner's mode is its own"
    assert all(not p.requires_grad for p in average.network.parameters())
    assert not average(batch.images.clone().requires_grad_()).requires_grad
    assert net.backward_images == 0 and average.forward_images == 5 * 5


def test_an_average_is_no_part_of_the_training() -> None:
    """With and without one: the same bits of the learner."""
    one, two = some_task(), some_task()
    a, b = one.learner(extra=head), two.learner(extra=head)
    average = two.average(b)
    for task, net in ((one, a), (two, b)):
        train(task, net)
        average.update(0.9)
    assert all_equal(weights(a), weights(b)) and all_equal(buffers(a), buffers(b))
    assert len(b.optimizer.param_groups[0]["params"]) == len(weights(b))


def test_an_average_comes_back_from_its_state() -> None:
    task = some_task()
    net = task.learner(extra=head)
    average, fresh = task.average(net), task.average(net, "other")
    train(task, net)
    average.update(0.5)
    average(plain_images(task)), average.infer(plain_images(task))
    fresh.load_state_dict(copy.deepcopy(average.state_dict()))
    assert all_equal(weights(fresh), weights(average)) and all_equal(buffers(fresh), buffers(average))
    assert fresh.forward_images == average.forward_images == 40
    train(task, net)
    average.update(0.5), fresh.update(0.5)
    assert all_equal(weights(fresh), weights(average))


class Teacher(EpochMethod):
    """A mean teacher with a head: what the record and the checkpoint have to keep."""

    slug = "mean-teacher-of-this-test"

    def setup(self, task: Any) -> None:
        self.net = task.learner("a", extra=head)
        self.average = task.average(self.net, "b")

    def epoch(self, epoch: int) -> None:
        for batch in self.task.batches():
            logits, features = self.net.with_features(batch.images)
            target = self.average(batch.images).softmax(dim=1)
            consistency = (logits.softmax(dim=1) - target).square().mean() + self.net.extra["head"](features).square().mean()
            self.net.step(F.cross_entropy(logits, batch.labels) + consistency)
            self.average.update(0.9)

    def predict(self, images: Tensor) -> Tensor:
        return self.average.infer(images).softmax(dim=1)


class Stop(BaseException):
    pass


def test_an_average_is_counted_and_resumed(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.method import methods

    monkeypatch.setitem(methods(), Teacher.slug, Teacher)
    cell = make_cell(Teacher, training={"epochs": 3})
    straight = run_cell(cell, Options("suite"))
    assert straight["status"] == "done", straight["reason"]
    cost = straight["cost"]
    # per epoch: both networks see every training image, the average every image of evaluation (143 + 355) besides
    assert (cost["networks"], cost["forward_images"], cost["backward_images"]) == (1, 3 * (2 * 1299 + 498), 3 * 1299)

    def interrupt(epoch: int, values: Any) -> None:
        if epoch == 1:
            raise Stop

    options = Options("suite", work_folder=str(tmp_path), checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        run_cell(cell, options, interrupt)
    epochs: list[int] = []
    resumed = run_cell(cell, options, lambda epoch, values: epochs.append(epoch))
    assert epochs == [1, 2]
    for key in ("metrics", "curve"):
        assert resumed[key] == straight[key]
    assert resumed["cost"]["forward_images"] == cost["forward_images"]


# --- further modules


def test_extra_modules_are_trained_saved_and_depend_on_the_name_alone() -> None:
    task = some_task()
    net = task.learner(extra=head)
    assert [tuple(p.shape) for p in net.extra["head"].parameters()] == [(4, 8), (4,), (4,), (4,)]
    first = weights(net)
    assert all_equal(first, weights(some_task(method="another").learner(extra=head)))
    for other in (some_task(seed=1).learner(extra=head), some_task().learner("b", extra=head)):
        assert not torch.equal(other.extra["head"][0].weight, net.extra["head"][0].weight)
    train(task, net)
    moved = net.extra["head"][0].weight.detach()
    assert not torch.equal(moved, first[-4])
    fresh = some_task().learner(extra=head)
    fresh.load_state_dict(copy.deepcopy(net.state_dict()))
    assert all_equal(weights(fresh), weights(net)) and all_equal(buffers(fresh), buffers(net))


def test_extra_modules_leave_the_network_and_global_randomness_alone() -> None:
    before = torch.get_rng_state()
    with_one, without = some_task().learner(extra=head), some_task().learner()
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(snapshot(with_one), snapshot(without)) and len(without.extra) == 0


# --- one full pass


@pytest.mark.parametrize("kind", ["learner", "average"])
@pytest.mark.parametrize("model", [TINY_CNN, MLP], ids=lambda m: m["name"])
@pytest.mark.parametrize("chunk", [1024, 3])
def test_a_full_pass_is_all_passes_in_one(model: dict[str, Any], kind: str, chunk: int) -> None:
    task = some_task(model=model)
    learner = task.learner()
    train(task, learner)
    net: Any = learner if kind == "learner" else Average(learner)
    net.chunk = chunk
    counted = net.forward_images
    full = task.full_pass(net)
    assert isinstance(full, FullPass) and net.forward_images == counted + 20
    assert torch.equal(full.logits, task.logits(net)) and torch.equal(full.features, task.features(net))
    assert torch.equal(full.losses, task.losses(net)) and torch.equal(full.probs, task.predictions(net))
    assert full.logits.shape == (20, 3) and full.features.shape == (20, net.network.head.in_features)
    assert not any(part.requires_grad for part in full) and not net.network.training
    # by hand
    network = copy.deepcopy(net.network).eval()
    with torch.no_grad():
        features = network.features(plain_images(task))
        logits = network.head(features)
    torch.testing.assert_close(full.features, features)
    torch.testing.assert_close(full.logits, logits)
    torch.testing.assert_close(full.probs, logits.exp() / logits.exp().sum(dim=1, keepdim=True))
    expected = -full.probs[torch.arange(20), task.labels].log()
    torch.testing.assert_close(full.losses, expected)


def test_a_full_pass_in_chunks_is_the_whole() -> None:
    task = some_task(count=20)
    net = task.learner()
    train(task, net)
    whole = task.full_pass(net)
    net.chunk = 3
    for part, expected in zip(task.full_pass(net), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-6)
