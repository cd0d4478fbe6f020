"""The learner: one network with its optimiser, schedule and precision; everything a method trains.

Calling a learner is a forward pass in training mode; `infer`, `features` and `full` are passes in evaluation mode without
gradient; `step` is one update. The learner counts the images that go forward and backward, so the cost of a method is
measured, not declared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.engine import Engine
from bench.fields import FieldError
from bench.training import Training

Forward = Callable[[Tensor], Any]


class Passes:
    """The passes of one network. `extra` holds further modules of the method (a projection head), trained with it."""

    #: images per chunk of a full pass in evaluation mode
    chunk = 1024

    def __init__(self, network: nn.Module, engine: Engine, extra: nn.ModuleDict, warn: Callable[[str], None] | None) -> None:
        self.network, self.engine, self.extra = network, engine, extra
        self.device = next(network.parameters()).device
        self.forward_images = 0
        self.backward_images = 0
        self._warn = warn or (lambda message: None)
        if engine.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled: dict[str, Forward] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """Logits [B, K] in float32, in training mode (batch statistics), with gradient where it is enabled.

        A batch of one image has no batch statistics: it is normalised with the running ones.
        """
        self._training_mode(images)
        return self._forward("logits", images)

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [B, K], pooled features [B, D]) of one pass in training mode, with gradient where it is enabled."""
        self._training_mode(images)
        return self._forward("both", images)

    def infer(self, images: Tensor) -> Tensor:
        """Logits [N, K] in evaluation mode without gradient, in chunks."""
        return self._evaluate("logits", images)

    def features(self, images: Tensor) -> Tensor:
        """Pooled penultimate features [N, D] in evaluation mode without gradient, in chunks."""
        return self._evaluate("features", images)

    def full(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(logits [N, K], features [N, D]) of one pass in evaluation mode without gradient, in chunks."""
        return self._evaluate("both", images)

    def _training_mode(self, images: Tensor) -> None:
        self._set_mode(images.shape[0] > 1)
        self.forward_images += images.shape[0]

    def _set_mode(self, training: bool) -> None:
        """For the modules of `extra` as well: what a method puts on top of a pass is in the mode of that pass."""
        for module in (self.network, self.extra):
            if module.training != training:
                module.train(training)

    def _function(self, what: str) -> Forward:
        network: Any = self.network
        if what == "logits":
            return network
        if what == "features":
            return network.features

        def both(images: Tensor) -> tuple[Tensor, Tensor]:
            features = network.features(images)
            return network.head(features), features

        return both

    def _forward(self, what: str, images: Tensor) -> Any:
        function = self._function(what) if self.engine.compile == "off" else self._compile(what)
        if self.engine.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if self.engine.precision == "float32":
            return function(images)
        with torch.autocast(self.device.type, dtype=self.engine.dtype):
            out = function(images)
        return tuple(part.float() for part in out) if isinstance(out, tuple) else out.float()

    def _compile(self, what: str) -> Forward:
        """The compiled pass; it becomes the plain one, with a warning, when its first call fails."""
        if what not in self._compiled:
            plain, graphs = self._function(what), self.engine.compile == "cuda-graphs"
            mode = "reduce-overhead" if graphs and self.device.type == "cuda" else "default"
            compiled = torch.compile(plain, mode=mode)

            def guarded(images: Tensor) -> Any:
                try:
                    out = compiled(images)
                except Exception as error:
                    if type(error).__module__.split(".")[0] != "torch" or isinstance(error, torch.OutOfMemoryError):
                        raise
                    self._warn(f"the network was not compiled ({type(error).__name__}); it ran as it is")
                    self._compiled[what] = plain
                    return plain(images)
                if mode == "default":
                    return out
                # the next replay of the graph writes over its outputs
                return tuple(part.clone() for part in out) if isinstance(out, tuple) else out.clone()

            self._compiled[what] = guarded
        return self._compiled[what]

    @torch.no_grad()
    def _evaluate(self, what: str, images: Tensor) -> Any:
        self._set_mode(False)
        self.forward_images += images.shape[0]
        if images.shape[0] <= self.chunk:
            return self._forward(what, images)
        parts = [self._forward(what, part) for part in images.split(self.chunk)]
        return tuple(map(torch.cat, zip(*parts, strict=True))) if what == "both" else torch.cat(parts)


class Learner(Passes):
    """One network being trained. Built by `task.learner(name)`, never by a method itself."""

    def __init__(
        self,
        network: nn.Module,
        training: Training,
        *,
        engine: Engine | None = None,
        extra: nn.ModuleDict | None = None,
        log_loss: Callable[[Tensor], None] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(network, engine or Engine(), extra if extra is not None else nn.ModuleDict(), warn)
        self.training = training
        self._log_loss = log_loss
        self._since_step = 0
        self._planned = True
        self._epoch, self._steps, self._step = 0, 1, 0
        self.optimizer = _optimizer([*network.parameters(), *self.extra.parameters()], training)
        half = self.engine.precision == "float16"
        self._scaler = torch.amp.GradScaler(self.device.type) if half else None

    def _training_mode(self, images: Tensor) -> None:
        super()._training_mode(images)
        if torch.is_grad_enabled():
            self._since_step += images.shape[0]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self.optimizer.param_groups[0]["lr"]

    def set_lr(self, value: float) -> None:
        """A learning rate that the method's own schedule asks for; holds until the end of the epoch."""
        self._planned = False
        self._write_lr(value)

    def _write_lr(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def step(self, loss: Tensor, *others: Learner, skip: Tensor | None = None) -> None:
        """One update on a scalar loss, of this learner and of `others` that took part in the loss: one backward pass.

        `skip`, bool 0-d on the device: where true, weights and optimiser stay exactly as they are, and the loss counts as 0
        in the log; nobody waits for it (under float16 the host does). Each learner's gradient is clipped by itself. The loss
        goes to the epoch's log without waiting for the device. Raises `ValueError` for a loss that is no scalar.
        """
        if loss.ndim != 0:
            raise ValueError(f"step needs a scalar loss, got shape {tuple(loss.shape)}; average over the batch first")
        learners = (self, *others)
        for learner in learners:
            learner.optimizer.zero_grad(set_to_none=True)
        (self._scaler.scale(loss) if self._scaler else loss).backward()
        updated = [learner._update(self._scaler, skip) for learner in learners]
        if self._scaler and any(updated):
            self._scaler.update()
        for learner in learners:
            learner.backward_images += learner._since_step
            learner._since_step = 0
            learner._step += 1
            if learner.training.schedule_by == "step":
                learner._follow_plan()
        if self._log_loss is not None:
            self._log_loss(loss.detach() if skip is None else loss.detach().masked_fill(skip, 0.0))

    def _update(self, scaler: torch.amp.GradScaler | None, skip: Tensor | None) -> bool:
        """Use the gradients; False where there are none, or where they must not be used and the host knows it."""
        optimizer: Any = self.optimizer
        if all(p.grad is None for group in optimizer.param_groups for p in group["params"]):
            return False
        if scaler and skip is not None and bool(skip):
            return False
        _start_momentum(optimizer)
        if scaler and self.training.clip_norm is not None:
            scaler.unscale_(optimizer)
        if self.training.clip_norm is not None:
            self._clip()
        if scaler:
            scaler.step(optimizer)
        else:
            # the fused kernels leave everything alone where `found_inf` is set: made for loss scaling, used to skip
            optimizer.found_inf = None if skip is None else skip.to(self.device, torch.float32)
            optimizer.step()
        return True

    def _clip(self) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, self.training.clip_norm or 0.0)

    def start_epoch(self, epoch: int, steps: int = 1) -> None:
        """Set the learning rate (and Adam's beta1) of this epoch of some `steps` updates; called by the harness."""
        self._since_step = 0  # passes of the last epoch that no step followed; a resumed run does not know of them
        self._planned = True
        self._epoch, self._steps, self._step = epoch, max(1, steps), 0
        self._follow_plan()
        for group in self.optimizer.param_groups:
            beta1 = self.training.beta1_at(epoch)
            if beta1 is not None and "betas" in group:
                group["betas"] = (beta1, group["betas"][1])

    def _follow_plan(self) -> None:
        """The rate of the next step; where an epoch has more steps than were announced, they keep the last one's."""
        if not self._planned:
            return
        steps = self._steps if self.training.schedule_by == "step" else 1
        self._write_lr(self.training.lr_at(self._epoch + min(self._step, steps - 1) / steps, 1 / steps))

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "extra": self.extra.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict() if self._scaler else None,
            "forward_images": self.forward_images,
            "backward_images": self.backward_images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.extra.load_state_dict(state["extra"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler and state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        self.forward_images, self.backward_images = state["forward_images"], state["backward_images"]


class Average(Passes):
    """A network whose weights follow a learner's by an exponential moving average (mean teacher, momentum encoder).

    Built by `task.average(learner)`. Its passes never have a gradient; in training mode its batch statistics are its own.
    """

    def __init__(self, learner: Learner, network: nn.Module | None = None) -> None:
        network = copy.deepcopy(learner.network) if network is None else network
        super().__init__(network.requires_grad_(False), learner.engine, copy.deepcopy(learner.extra).requires_grad_(False),
                         learner._warn)  # fmt: skip
        # not an attribute that a checkpoint would save a second time
        self._follows: list[Tensor] = [*learner.network.parameters(), *learner.extra.parameters()]
        self._buffers = [*learner.network.buffers(), *learner.extra.buffers()]

    @torch.no_grad()
    def update(self, decay: float, *, buffers: bool = False) -> None:
        """weights <- decay * weights + (1 - decay) * the learner's. `buffers` copies its batch-norm statistics too."""
        own: list[Tensor] = [*self.network.parameters(), *self.extra.parameters()]
        torch._foreach_lerp_(own, self._follows, 1 - decay)
        if buffers:
            for mine, theirs in zip([*self.network.buffers(), *self.extra.buffers()], self._buffers, strict=True):
                mine.copy_(theirs)

    @torch.no_grad()
    def _forward(self, what: str, images: Tensor) -> Any:
        return super()._forward(what, images)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "extra": self.extra.state_dict(), "forward_images": self.forward_images}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.extra.load_state_dict(state["extra"])
        self.forward_images = state["forward_images"]


def _start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Zeros where SGD has no momentum yet: fused kernels leave uninitialised memory there when the first step is skipped,
    and fail when some parameters have a momentum and others, such as those of a head that joins later, have none."""
    if len(optimizer.state) == sum(len(group["params"]) for group in optimizer.param_groups):
        return  # every parameter has been stepped: nothing to look for in each step
    for group in optimizer.param_groups:
        if group.get("momentum"):
            for p in group["params"]:
                if p.grad is not None and optimizer.state[p].get("momentum_buffer") is None:
                    optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)


def _optimizer(parameters: list[nn.Parameter], training: Training) -> torch.optim.Optimizer:
    parameters = [p for p in parameters if p.requires_grad]
    if training.optimizer == "sgd":
        if training.nesterov and training.momentum == 0:
            raise FieldError("training.nesterov", "Nesterov needs a momentum", "set training.momentum above 0")
        return torch.optim.SGD(
            parameters, training.lr, training.momentum, weight_decay=training.weight_decay, nesterov=training.nesterov,
            fused=True,
        )  # fmt: skip
    cls = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return cls(parameters, training.lr, betas=(0.9, 0.999), weight_decay=training.weight_decay, fused=True)
