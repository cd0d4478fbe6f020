"""bench.engine in the learner: half precision, memory layout, compilation, and the process-wide switches of torch."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import MLP, TINY_CNN, make_cell
from torch import Tensor, nn

from bench.api import run
from bench.engine import COMPILE, PRECISIONS, Engine
from bench.learner import Average, Learner
from bench.method import methods
from bench.models import build, models
from bench.schedule import Job
from bench.training import Training
from bench.trial.runner import Options, run_cell
from bench.yaml_source import SuiteError

RESNET: dict[str, Any] = {"name": "preact-resnet18", "width": 2}
NETWORKS = [TINY_CNN, MLP, *([RESNET] if RESNET["name"] in models() else [])]


def images(count: int, seed: int = 0, channels: int = 1) -> Tensor:
    return torch.randn((count, channels, 8, 8), generator=torch.Generator().manual_seed(seed))


def labels(count: int) -> Tensor:
    return torch.arange(count) % 3


def learner(model: dict[str, Any] = TINY_CNN, *, channels: int = 1, warn: Any = None, **settings: Any) -> Learner:
    engine = Engine(**{name: settings.pop(name) for name in list(settings) if name in Engine.__dataclass_fields__})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(model, (channels, 8, 8), 3)
    return Learner(network, Training(**settings), engine=engine, warn=warn)


def train(net: Learner, steps: int, first: int = 0, factor: float = 1.0) -> list[float]:
    losses = []
    for number in range(first, first + steps):
        loss = F.cross_entropy(net(images(8, number)), labels(8))
        net.step(factor * loss)
        losses.append(float(loss.detach()))
    return losses


def weights(net: Learner) -> list[Tensor]:
    return [p.detach().clone() for p in net.network.parameters()]


def close(a: Learner, b: Learner, tolerance: float) -> None:
    for p, q in zip(a.network.state_dict().values(), b.network.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


# --- precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("model", [TINY_CNN, MLP], ids=lambda m: m["name"])
def test_half_precision_computes_in_half_and_returns_float32(model: dict[str, Any], precision: str) -> None:
    net, exact = learner(model, precision=precision), learner(model)
    logits, reference = net(images(16)), exact(images(16))
    assert logits.dtype == torch.float32 and net.infer(images(4)).dtype == torch.float32
    assert net.features(images(4)).dtype == torch.float32
    assert {part.dtype for part in (*net.full(images(4)), *net.with_features(images(4)))} == {torch.float32}
    assert not torch.equal(logits, reference)
    torch.testing.assert_close(logits, reference, rtol=0.1, atol=0.1)
    fixed = [F.cross_entropy(net(images(16)), labels(16))]
    for _ in range(20):
        net.step(fixed[-1])
        fixed.append(F.cross_entropy(net(images(16)), labels(16)))
    assert fixed[-1].item() < fixed[0].item() / 2
    assert all(p.dtype == torch.float32 for p in net.network.parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_step_in_half_is_nearly_that_in_float32(precision: str, optimizer: str) -> None:
    """The update itself, not the weights that it hardly moves: within a few per cent of its length."""
    exact, half = (learner(optimizer=optimizer, lr=0.01, precision=p) for p in ("float32", precision))
    before = weights(exact)
    train(exact, 1), train(half, 1)
    moves = [torch.cat([(a - b).flatten() for a, b in zip(weights(net), before, strict=True)]) for net in (exact, half)]
    assert float(moves[0].norm()) > 1e-3
    if optimizer == "sgd":
        assert float((moves[0] - moves[1]).norm() / moves[0].norm()) < 0.05
    else:  # Adam's first step is the sign of each gradient
        assert float((moves[0].sign() != moves[1].sign()).float().mean()) < 0.05


@pytest.mark.parametrize("slug", ["gce", "co-teaching", "dividemix"])
def test_each_level_trains_in_half_precision(slug: str) -> None:
    """One method of each level, two epochs that begin every stage; the first losses are those of float32."""
    cell = make_cell(slug, methods()[slug].smoke, training={"batch_size": 433})
    exact = run_cell(cell, Options("suite"))
    for precision in ("bfloat16", "float16"):
        record = run_cell(cell, Options("suite", engine=Engine(precision)))
        assert record["status"] == "done", record["reason"]
        assert record["provenance"]["engine"]["precision"] == precision and record["warnings"] == []
        assert record["curve"]["train_loss"] != exact["curve"]["train_loss"]
        assert record["curve"]["train_loss"][0] == pytest.approx(exact["curve"]["train_loss"][0], rel=0.02)


# --- the loss scaler of float16


def scale(net: Learner) -> float:
    assert net._scaler is not None
    return net._scaler.get_scale()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_an_overflow_skips_the_update_and_lowers_the_scale(optimizer: str, clip: float | None) -> None:
    net = learner(precision="float16", optimizer=optimizer, clip_norm=clip)
    train(net, 1)
    before, state, high = weights(net), copy.deepcopy(net.optimizer.state_dict()), scale(net)
    train(net, 1, first=1, factor=1e35)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))
    assert str(state) == str(net.optimizer.state_dict()) and scale(net) == high / 2
    train(net, 1, first=2)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True)) and scale(net) == high / 2


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    net = learner(MLP, precision="float16", lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.01)
    before = weights(net)
    train(net, 1)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, weights(net), strict=True)])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_scaler_comes_back_from_a_state() -> None:
    one = learner(precision="float16")
    train(one, 2), train(one, 1, first=2, factor=1e35), train(one, 2, first=3)
    other = learner(precision="float16")
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert one._scaler and other._scaler and other._scaler.state_dict() == one._scaler.state_dict()
    assert one.state_dict()["scaler"]["_growth_tracker"] == 2 and one.state_dict()["scaler"]["scale"] == 2.0**15
    train(one, 3, first=5), train(other, 3, first=5)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))
    assert learner().state_dict()["scaler"] is None


def test_skips_and_absent_gradients_leave_weights_and_scaler_alone_in_float16() -> None:
    one, two = (learner(precision="float16") for _ in range(2))
    scaler = copy.deepcopy(one.state_dict()["scaler"])
    one.step(F.cross_entropy(one(images(8, 7)), labels(8)), skip=torch.tensor(True))
    one.step(torch.zeros((), requires_grad=True) * 2)  # of parameters of nobody
    assert one.state_dict()["scaler"] == scaler
    for number in range(3):
        one.step(F.cross_entropy(one(images(8, number)), labels(8)), skip=torch.tensor(False))
        two.step(F.cross_entropy(two(images(8, number)), labels(8)))
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))


def test_a_joint_step_in_float16_is_scaled_once() -> None:
    half = [learner(precision="float16", lr=0.01), learner(precision="float16", lr=0.01)]
    exact = [learner(lr=0.01), learner(lr=0.01)]
    for nets in (half, exact):
        loss = sum(F.cross_entropy(net(images(8)), labels(8)) for net in nets)
        assert isinstance(loss, Tensor)
        nets[0].step(loss, nets[1])
    for a, b in zip(half, exact, strict=True):
        close(a, b, 1e-3)
    assert scale(half[0]) == 2.0**16 and half[0].state_dict()["scaler"]["_growth_tracker"] == 1


# --- memory layout


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", NETWORKS, ids=lambda m: m["name"])
def test_channels_last_gives_the_same_results(model: dict[str, Any], channels: int) -> None:
    first, last = (learner(model, channels=channels, channels_last=on, lr=0.01) for on in (False, True))
    convolutions = [m.weight for m in last.network.modules() if isinstance(m, nn.Conv2d) and m.weight[0, 0].numel() > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    for number in range(2):
        batch = images(8, number, channels)
        outputs = [net(batch) for net in (first, last)]
        tolerance = 1e-6 if model is not RESNET else 1e-5  # sums of another order, through seventeen layers
        torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
        gradients = []
        for net, logits in zip((first, last), outputs, strict=True):
            loss = F.cross_entropy(logits, labels(8))
            gradients.append(torch.autograd.grad(loss, list(net.network.parameters()), retain_graph=True))
            net.step(loss)
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=tolerance)
    for a, b in zip(last.full(images(8, 5, channels)), first.full(images(8, 5, channels)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_channels_last_is_kept_by_averages_and_states() -> None:
    net = learner(channels_last=True)
    train(net, 2)
    average, other = Average(net), learner(channels_last=True)
    other.load_state_dict(copy.deepcopy(net.state_dict()))
    train(net, 2, first=2), train(other, 2, first=2)
    average.update(0.5)
    for network in (average.network, other.network):
        kept = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)][-1]
        assert kept.is_contiguous(memory_format=torch.channels_last) and not kept.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(weights(net), weights(other), strict=True))


# --- compilation


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs a C++ compiler")
def test_a_compiled_network_agrees_with_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    heard: list[str] = []
    model = {**TINY_CNN, "widths": [4]}
    plain, compiled = learner(model, lr=0.01), learner(model, lr=0.01, compile="default", warn=heard.append)
    assert train(plain, 2) == pytest.approx(train(compiled, 2), abs=1e-5)
    close(plain, compiled, 1e-5)
    torch.testing.assert_close(compiled.infer(images(8)), plain.infer(images(8)), rtol=1e-5, atol=1e-5)
    assert heard == [] and any(tmp_path.iterdir())


def failing_compile(failures: list[str]) -> Any:
    """Stands for torch.compile: what it returns fails when it is first called, as a missing compiler does."""

    def compile_(function: Any, mode: str = "default") -> Any:
        def call(*arguments: Any) -> Any:
            failures.append(mode)
            raise torch._dynamo.exc.BackendCompilerFailed(compile_, RuntimeError("no compiler"), None)

        return call

    return compile_


@pytest.mark.parametrize("compile_", ["default", "cuda-graphs"])
def test_a_network_that_does_not_compile_runs_as_it_is(compile_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[str] = []
    monkeypatch.setattr(torch, "compile", failing_compile(failures))
    cell = make_cell("dividemix", {"warmup": 1})
    record = run_cell(cell, Options("suite", engine=Engine(compile=compile_)))
    plain = run_cell(cell, Options("suite"))
    assert record["status"] == "done", record["reason"]
    assert record["warnings"] == ["the network was not compiled (BackendCompilerFailed); it ran as it is"]
    assert record["metrics"] == plain["metrics"] and record["curve"] == plain["curve"]
    assert failures == ["default", "default"], "each network tried it once, without CUDA graphs on a CPU"


def test_faults_that_are_none_of_the_compiler_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in (torch.OutOfMemoryError("too large"), ValueError("a bug of the network")):

        def broken(function: Any, mode: str, fault: Exception = fault) -> Any:
            def call(*arguments: Any) -> Any:
                raise fault

            return call

        monkeypatch.setattr(torch, "compile", broken)
        heard: list[str] = []
        with pytest.raises(type(fault)):
            learner(compile="default", warn=heard.append)(images(4))
        assert heard == []


# --- switches


def switches() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
    )  # fmt: skip


@pytest.fixture
def cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # so that the process keeps none of this


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_switches_are_set_for_one_trial(cublas: None, deterministic: bool, tf32: bool, before: bool) -> None:
    own = switches()
    try:
        torch.use_deterministic_algorithms(before, warn_only=before)
        torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
        found = switches()
        engine = Engine(deterministic=deterministic, tf32=tf32)
        with engine.applied(torch.device("cuda")):
            assert switches() == (deterministic, False, not deterministic, tf32, tf32)
        assert switches() == found
        with pytest.raises(KeyError), engine.applied(torch.device("cuda")):
            raise KeyError
        assert switches() == found
    finally:
        torch.use_deterministic_algorithms(own[0], warn_only=own[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = own[2:]


def test_switches_are_left_alone_on_a_cpu() -> None:
    own = switches()
    with Engine(deterministic=True, tf32=True).applied(torch.device("cpu")):
        assert switches() == own


def test_wrong_settings_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16, float16, got 'half'"):
        Engine("half")
    with pytest.raises(ValueError, match="compile must be one of off, default, cuda-graphs, got 'on'"):
        Engine(compile="on")
    assert {Engine(name).dtype for name in PRECISIONS} == {torch.float32, torch.bfloat16, torch.float16}
    assert [Engine(compile=name).compile for name in COMPILE] == list(COMPILE)


# --- from a suite to the record

SUITE = "datasets: digits\nnoises: none\nmethods: erm\ntraining: {epochs: 1}\nmodel: {name: mlp, widths: [4]}\n"
SET = {"precision": "bfloat16", "channels_last": True, "compile": "cuda-graphs", "deterministic": True, "tf32": True}


def jobs(folder: Path, monkeypatch: pytest.MonkeyPatch, resources: str = "") -> list[Job]:
    """What `bench run` hands to the executor."""
    given: list[Job] = []
    monkeypatch.setattr("bench.schedule.run_jobs", lambda jobs, **rest: given.extend(jobs))
    (folder / "suite.yaml").write_text(SUITE + resources)
    run(folder / "suite.yaml", results=folder / "results", executor="inline", tracking="none", say=None)
    return given


@pytest.mark.parametrize("name", list(SET))
def test_resources_reach_the_engine_and_not_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (plain,) = jobs(tmp_path, monkeypatch)
    (job,) = jobs(tmp_path, monkeypatch, f"resources: {{{name}: {str(SET[name]).lower()}}}\n")
    assert plain.options.engine == Engine()
    assert job.options.engine == dataclasses.replace(Engine(), **{name: SET[name]}) != Engine()
    assert job.id == plain.id and job.cell == plain.cell


def test_the_record_says_how_it_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = "resources: {precision: float16, channels_last: true, deterministic: true}\n"
    (job,) = jobs(tmp_path, monkeypatch, resources)
    record = run_cell(job.cell, job.options)
    assert record["status"] == "done" and record["id"] == job.id
    assert record["provenance"]["engine"] == {
        "precision": "float16", "channels_last": True, "compile": "off", "deterministic": True, "tf32": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("resources", "place", "hint"),
    [
        ("channel_last: true", "suite.yaml:6: resources.channel_last", "did you mean channels_last"),
        ("precission: bfloat16", "suite.yaml:6: resources.precission", "did you mean precision"),
        ("precision: half", "suite.yaml:6: resources.precision", "'float32', 'bfloat16' or 'float16'"),
        ("compile: max", "suite.yaml:6: resources.compile", "'off', 'default' or 'cuda-graphs'"),
        ("deterministic: 7", "suite.yaml:6: resources.deterministic", "valid boolean"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: str, place: str, hint: str
) -> None:
    with pytest.raises(SuiteError) as caught:
        jobs(tmp_path, monkeypatch, f"resources: {{{resources}}}\n")
    (problem,) = caught.value.problems
    assert place in str(problem) and hint in str(problem)
