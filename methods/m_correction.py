"""M-correction: beta mixture on losses, dynamic bootstrapping, mixup (Arazo et al., ICML 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from bench.fields import Range
from bench.method import DIGITS, TUNED, EpochMethod, Recipe
from bench.ops.beta_mixture import BetaMixture, beta_mixture, loss_range, noisy_posterior, scale_losses
from bench.ops.losses import cross_entropy, soft_cross_entropy, uniform_prior_kl
from bench.ops.mixing import beta_mix_coefficient
from bench.ops.targets import one_hot

_CIFAR = {
    "alpha": 32.0, "warmup": 105, "prior_weight": 1.0, "training.lr": 0.1, "training.weight_decay": 1e-4,
    "training.batch_size": 128, "training.epochs": 300, "training.schedule": "multistep", "training.milestones": (100, 250),
}  # fmt: skip
_CODE = "README of the official code, commit 5e9a73e; PreAct-ResNet-18"
_BEST = "the paper's best variant for this cell, chosen after the fact (README of the official code)"


class MCorrection(EpochMethod):
    """Arazo, Ortego, Albert, O'Connor & McGuinness, "Unsupervised Label Noise Modeling and Loss Correction", ICML 2019.

    After each epoch a two-component beta mixture is fitted to the losses of all samples. The posterior B_i [N] of the
    component of high losses weighs a sample's own prediction against its label, on top of mixup.

    `M-DYR-H`: bootstrapping with the arg max z of the prediction on the unmixed image, labels and predictions mixed by the
    images' coefficient. `M-DYR-S`: with the softmax. `MD-DYR-SH`: images mixed by their trust, weights (1 - B_i) and
    (1 - B_j), for `mixup_epochs` epochs alone and then with bootstrapping towards softmax(logits / T), T falling from 1 to
    0.001 over `temperature_epochs`.

    B of a batch comes from an evaluation-mode pass over the unmixed images with the mixture of the epoch before, as released;
    the passes stand in the released order, which batch statistics can feel. Losses for the mixture are those of the weak view
    (released); `tracked_view: plain` takes unaugmented images. Ten EM steps are no convergence, and part of the method.
    Deviations: components are ordered by their means (released: by where EM started); a degenerate fit keeps the last one, B is
    one half before there is any; the class prior has as many classes as the data (released, soft variant: always 10); mixup
    coefficients are folded to at least 1/2, the same in distribution. Prediction: the one network. Scores for noise
    identification: 1 - B of the losses after the epoch. To watch: `loss`, the scaled ones with their mixture.
    """

    slug = "m-correction"
    title = "M-correction"
    paper = "Arazo et al., ICML 2019, arXiv:1904.11238"
    code = "PaulAlbert31/LabelNoiseCorrection @5e9a73e"
    cost = "4 FE while warming up, then 6 FE (5 in the epochs of dynamic mixup alone)"
    recipes = (
        Recipe("paper", _CODE, _CIFAR, {"dataset": ("cifar10", "cifar100")}),
        Recipe("paper", _BEST, {"variant": "MD-DYR-SH"}, {"dataset": "cifar10", "noise": "symmetric", "rate": 0.9}),
        Recipe("paper", _BEST, {"variant": "MD-DYR-SH"}, {"dataset": "cifar100"}),
        Recipe("paper", _BEST, {"variant": "M-DYR-H"}, {"dataset": "cifar100", "noise": "symmetric", "rate": 0.8}),
        Recipe("fixed", TUNED.format("digits"), {"variant": "M-DYR-S", "warmup": 20}, {"dataset": DIGITS}),
        Recipe("fixed", TUNED.format("spurious-digits"),
               {"variant": "MD-DYR-SH", "warmup": 10, "mixup_epochs": 1, "temperature_epochs": 9},
               {"dataset": "spurious-digits"}),
    )  # fmt: skip

    smoke = {"warmup": 1, "mixup_epochs": 0}

    variant: Literal["M-DYR-H", "M-DYR-S", "MD-DYR-SH"] = "M-DYR-H"
    alpha: Annotated[float, Range(gt=0)] = 32.0
    warmup: Annotated[int, Range(ge=1)] = 105
    mixup_epochs: Annotated[int, Range(ge=0)] = 5
    temperature_epochs: Annotated[int, Range(ge=1)] = 89
    prior_weight: Annotated[float, Range(ge=0)] = 1.0
    em_steps: Annotated[int, Range(ge=1)] = 10
    tracked_view: Literal["weak", "plain"] = "weak"

    def setup(self, task) -> None:
        self.net = task.learner()
        self.fit: dict[str, Tensor] = {}
        self.clean: Tensor | None = None

    def epoch(self, epoch: int) -> None:
        for batch in self.task.batches():
            if epoch < self.warmup:
                self.mixup(batch)
            elif self.variant == "MD-DYR-SH":
                self.dynamic_mixup(batch, epoch)
            else:
                self.dynamic_bootstrap(batch)
        self.model_losses()

    # -- the mixture -----------------------------------------------------------------------------------------------
    def model_losses(self) -> None:
        losses = self.track()
        bounds = loss_range(losses)
        scaled, inside = scale_losses(losses, bounds)
        mixture = beta_mixture(scaled, n_iter=self.em_steps, keep=inside)
        fit = {"low": bounds[0], "high": bounds[1], "alphas": mixture.alphas, "betas": mixture.betas,
               "weights": mixture.weights, "degenerate": mixture.degenerate}  # fmt: skip
        if self.fit:
            fit = {name: torch.where(mixture.degenerate, self.fit[name], value) for name, value in fit.items()}
        self.fit = fit
        self.clean = 1 - self.posterior(losses)
        self.task.observe("loss", values=lambda: scaled, mixture=lambda: mixture)

    def track(self) -> Tensor:
        """Cross-entropy [N] of every sample, in index order and evaluation mode."""
        samples = torch.arange(self.task.num_samples, device=self.task.device)
        batches = self.task.batches((self.tracked_view,), indices=samples, batch_size=self.net.chunk, shuffle=False)
        return torch.cat([cross_entropy(self.net.infer(batch.images), batch.labels) for batch in batches])

    def posterior(self, losses: Tensor) -> Tensor:
        """B [B] of losses [B]: posterior of the noisy component, in [1e-4, 1 - 1e-4]."""
        scaled, _ = scale_losses(losses, (self.fit["low"], self.fit["high"]))
        mixture = BetaMixture(self.fit["alphas"], self.fit["betas"], self.fit["weights"], losses, self.fit["degenerate"])
        return noisy_posterior(mixture, scaled).clamp(1e-4, 1 - 1e-4)

    def noisy(self, batch) -> Tensor:
        return self.posterior(cross_entropy(self.net.infer(batch.images), batch.labels))

    # -- steps -----------------------------------------------------------------------------------------------------
    def mixup(self, batch) -> None:
        share, partner = self.coefficient(), self.partners(batch)
        self.net.step(mixed_loss(self.net(blend(batch.images, share, partner)), batch.labels, share, partner))

    def dynamic_bootstrap(self, batch) -> None:
        share, partner = self.coefficient(), self.partners(batch)
        images = blend(batch.images, share, partner)
        guess = self.guess(batch)
        if self.variant == "M-DYR-H":
            logits, noisy = self.net(images), self.noisy(batch)
            target = one_hot(guess.argmax(dim=1), self.task.num_classes)
        else:
            noisy, logits = self.noisy(batch), self.net(images)
            target = guess.softmax(dim=1)
        self.net.step(self.bootstrapped(logits, batch.labels, target, noisy, share, partner))

    def dynamic_mixup(self, batch, epoch: int) -> None:
        alone = epoch < self.warmup + self.mixup_epochs
        target = batch.labels if alone else (self.guess(batch) / self.temperature(epoch)).softmax(dim=1)
        noisy, partner = self.noisy(batch), self.partners(batch)
        share, y = self.coefficient() if alone else 0.5, batch.labels
        logits = self.net(blend(batch.images, trust(noisy, partner), partner))
        loss = mixed_loss(logits, y, share, partner) if alone else self.bootstrapped(logits, y, target, noisy, share, partner)
        self.net.step(loss)

    @torch.no_grad()
    def guess(self, batch) -> Tensor:
        """Logits [B, K] of the unmixed images, in training mode."""
        return self.net(batch.images)

    def bootstrapped(self, logits: Tensor, labels: Tensor, target: Tensor, noisy: Tensor, share, partner: Tensor) -> Tensor:
        """The mean of share * [(1 - B_i) CE(y_i) + B_i CE(z_i)] + (1 - share) * [the same for the partner], plus the prior."""

        def towards(labels: Tensor, target: Tensor, noisy: Tensor) -> Tensor:
            return (1 - noisy) * cross_entropy(logits, labels) + noisy * soft_cross_entropy(logits, target)

        own = towards(labels, target, noisy)
        losses = share * own + (1 - share) * towards(labels[partner], target[partner], noisy[partner])
        return losses.mean() + self.prior_weight * uniform_prior_kl(logits.softmax(dim=1).mean(dim=0))

    def temperature(self, epoch: int) -> float:
        """1 in the first epoch of bootstrapping, falling in equal steps to 0.001, then held."""
        step = min(epoch - self.warmup - self.mixup_epochs, self.temperature_epochs - 1)
        return 1.0 - 0.999 * step / max(1, self.temperature_epochs - 1)

    def coefficient(self) -> Tensor:
        return beta_mix_coefficient(self.alpha, generator=self.task.generator("mix"), device=self.task.device)

    def partners(self, batch) -> Tensor:
        return torch.randperm(len(batch), generator=self.task.generator("mix")).to(self.task.device, non_blocking=True)

    def predict(self, images: Tensor) -> Tensor:
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self) -> Tensor | None:
        return self.clean


def blend(images: Tensor, share: Tensor, partner: Tensor) -> Tensor:
    """share * x_i + (1 - share) * x_j for images [B, C, H, W]; share 0-d, or one per image [B]."""
    share = share.view(-1, 1, 1, 1)
    return share * images + (1 - share) * images[partner]


def trust(noisy: Tensor, partner: Tensor) -> Tensor:
    """Share [B] of each image in a pair by its posterior of being clean: (1 - B_i) / ((1 - B_i) + (1 - B_j))."""
    clean = 1 - noisy
    return clean / (clean + clean[partner])


def mixed_loss(logits: Tensor, labels: Tensor, share: Tensor | float, partner: Tensor) -> Tensor:
    """Mean of share * CE(y_i) + (1 - share) * CE(y_j); 0-d."""
    return (share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, labels[partner])).mean()
