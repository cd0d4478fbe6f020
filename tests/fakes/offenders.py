"""Methods that break one rule each: proof that every check of the conformance battery can fail."""

from __future__ import annotations

from dataclasses import dataclass

IMPORTS = """import itertools
import random
import sys

import numpy as np
import torch
from torch import nn

from bench.method import EpochMethod, Recipe
from bench.ops.losses import cross_entropy
from bench.ops.mixtures import clean_posterior
"""

#: a method that passes; an offender replaces one line of it
SOUND = (
    IMPORTS
    + '''
COUNT = itertools.count(1)
KEPT = []

class Offender(EpochMethod):
    """Warm-up, then training on the samples that a mixture calls clean."""

    slug = "offender"
    smoke = {"warmup": 1}

    warmup: int = 5
    threshold: float = 0.5
    twice: bool = False

    def setup(self, task):
        self.net = task.learner()
        self.scores = torch.zeros(task.num_samples)
        self.steps = 0
        self._calls = 0
        # setup

    def epoch(self, epoch):
        # epoch
        chosen = torch.arange(self.task.num_samples)
        if epoch >= self.warmup:
            chosen = self.divide()
        for batch in self.task.batches(indices=chosen):
            self.steps += 1
            self._calls += 1
            scale = 1.0
            logits = self.net(batch.images)
            losses = cross_entropy(logits, batch.labels)
            # loss
            self.net.step((losses * scale).mean() * (2.0 if self.twice else 1.0))
        # end

    def divide(self):
        self.scores, _ = clean_posterior(self.losses(), smaller_is_clean=True)
        chosen = torch.nonzero(self.scores > self.threshold)[:, 0]
        return chosen if len(chosen) else torch.arange(self.task.num_samples)

    def losses(self):
        return cross_entropy(self.task.logits(self.net), self.task.labels)

    def predict(self, images):
        return self.net.infer(images).softmax(dim=1)

    def clean_scores(self):
        return self.scores
'''
)
SLUG = 'slug = "offender"'
SETUP, EPOCH, LOSS, END = "# setup", "# epoch", "# loss", "# end"
BATCHES = "self.task.batches(indices=chosen)"
FALLBACK = "return chosen if len(chosen) else torch.arange(self.task.num_samples)"
PREDICT = "return self.net.infer(images).softmax(dim=1)"
SCORES = "return self.scores"
SMOKE = 'smoke = {"warmup": 1}'
ODD_MODULE = (
    "self.module = nn.Identity(); "
    "self.module.register_state_dict_post_hook(lambda m, d, p, l: d.update(x=random.Random))"
)
TRY = "try: {}\n        except Exception: pass"


@dataclass(frozen=True)
class Offence:
    """`put` in the place of `where` makes `check` fail with a message that contains `says`."""

    check: str
    what: str
    where: str
    put: str
    says: str

    def source(self) -> str:
        assert SOUND.count(self.where) == 1
        return SOUND.replace(self.where, self.put)


OFFENCES = [
    Offence("trains", "predicts NaN", PREDICT, PREDICT + " * float('nan')", "diverged: predictions are not finite"),
    Offence("trains", "predicts too few", PREDICT, PREDICT + "[:5]", "must return probabilities of shape"),
    Offence("trains", "raises", LOSS, "raise RuntimeError('broken')", "RuntimeError: broken (offender.py:"),
    Offence("trains", "ends the process", EPOCH, "sys.exit(3)", "SystemExit(3)"),
    Offence("trains", "reads an undeclared need", SETUP, "self.rate = task.noise_rate", "without declaring it"),
    Offence("trains", "reaches true labels", SETUP, "self.truth = task.clean_labels", "belong to the evaluator"),
    Offence("deterministic", "counts in the module", LOSS, "scale = 1 + 0.01 * next(COUNT)", "gives other bits"),
    Offence("seeds", "its own constant randomness", SETUP,
            "[p.data.fill_(0.01) for p in self.net.network.parameters()]; task.batches = "
            "lambda indices, real=task.batches: real(('plain',), indices=indices, shuffle=False)",
            "two seeds give the same"),
    Offence("resume", "hidden state", LOSS, "scale = 1 + 0.01 * self._calls", "resumed runs end elsewhere"),
    Offence("resume", "state that cannot be saved", EPOCH, "self.seen = {1, 2}", "offender.seen is a set"),
    Offence("resume", "state that cannot be read back", EPOCH, ODD_MODULE, "should begin with epoch 1"),
    Offence("options", "hidden state of an option", LOSS, "scale = 1 + 0.01 * self._calls * self.twice",
            "twice=True: a resumed run"),
    Offence("options", "a broken option", LOSS, "assert not self.twice, 'no'",
            "twice=True: failed: AssertionError: no"),
    Offence("clean-labels", "keeps the images it predicts", PREDICT, "self.last = images[3:9]; " + PREDICT,
            "self.last holds held-out images"),
    Offence("clean-labels", "keeps them in the module", PREDICT, "KEPT.append([images]); " + PREDICT,
            "KEPT[0][0] holds held-out images"),
    Offence("clean-labels", "keeps them on the class", PREDICT, "type(self).last = images; " + PREDICT,
            "Offender.last holds held-out images"),
    Offence("clean-labels", "keeps them in a closure", PREDICT, "self._again = lambda: images.mean(); " + PREDICT,
            "self._again closing over images"),
    Offence("clean-labels", "asks for true labels and goes on", EPOCH, TRY.format("self.task.clean_labels"),
            "asks for task.clean_labels"),
    Offence("clean-labels", "loads the data itself", "import itertools",
            "from bench.data import load; import itertools", "line 1 imports bench.data.load"),
    Offence("needs", "reads an undeclared need and goes on", EPOCH, TRY.format("self.task.groups"),
            "it reads task.groups without declaring it"),
    Offence("needs", "needs what there is not", SLUG, SLUG + '; needs = frozenset({"truth"})',
            "unknown need 'truth'; valid: noise_rate"),
    Offence("random-state", "draws from torch", SETUP, "torch.rand(())", "generator of torch;"),
    Offence("random-state", "draws from NumPy", LOSS, "scale = np.random.rand()", "generator of numpy.random;"),
    Offence("random-state", "draws from Python", LOSS, "scale = random.random()", "generator of random;"),
    Offence("random-state", "seeds torch", SETUP, "torch.manual_seed(0)", "generator of torch;"),
    Offence("random-state", "puts back what it read", LOSS,
            "state = np.random.get_state(); scale = np.random.rand(); np.random.set_state(state)", "moves results"),
    Offence("predictions", "logits", PREDICT, "return self.net.infer(images)", "no probabilities; apply softmax"),
    Offence("predictions", "a sum of two", PREDICT, PREDICT + " * 2", "divide ensembles by their size"),
    Offence("predictions", "a class too many", PREDICT,
            "return torch.nn.functional.pad(self.net.infer(images).softmax(1), (0, 1))",
            "of shape (36, 4), got (36, 5)"),
    Offence("predictions", "depends on company", PREDICT,
            "x = self.net.infer(images); return (x - x.mean(0)).softmax(dim=1)", "depends on the images that come"),
    Offence("predictions", "training mode", PREDICT, "with torch.no_grad(): return self.net(images).softmax(dim=1)",
            "predict changes the method: state.net.network"),
    Offence("predictions", "writes into the images", PREDICT, "images.add_(0.1); " + PREDICT,
            "predict wrote into the images"),
    Offence("predictions", "raises for one image", PREDICT, "assert len(images) > 1; " + PREDICT,
            "predict raises AssertionError"),
    Offence("clean-scores", "NaN", SCORES, "return self.scores * float('nan')", "clean scores are not finite"),
    Offence("clean-scores", "other numbers of samples", SCORES,
            "return self.scores[sys._getframe(1).f_code.co_name == 'call':]", "shape (76,); it returns (75,)"),
    Offence("clean-scores", "raises", SCORES, "assert sys._getframe(1).f_code.co_name != 'call'; return self.scores",
            "clean_scores raises AssertionError"),
    Offence("checkpoint", "a set", SETUP, "self.seen = {1, 2}", "offender.seen is a set, which cannot be checkpointed"),
    Offence("checkpoint", "an object inside", SETUP, ODD_MODULE, "holds objects that a checkpoint may not"),
    Offence("cost", "declares two networks", SLUG, SLUG + "; networks = 2", "declares networks = 2 and has 1"),
    Offence("cost", "bypasses the learner", "self.net(batch.images)", "self.net.network(batch.images)",
            "no pass was counted"),
    Offence("worker", "depends on the process", LOSS, "scale = 1.5 if 'pytest' in sys.modules else 1.0",
            "gets another result"),
    Offence("worker", "fails elsewhere", SETUP, "assert 'pytest' in sys.modules, 'not here'",
            "AssertionError: not here"),
    Offence("single-sample", "deviation of the batch", LOSS, "losses = losses / losses.std()",
            "33 samples in batches of 16: diverged"),
    Offence("batch-of-one", "deviation of the batch", LOSS, "losses = losses / losses.std()", "batch size 1: diverged"),
    Offence("small-data", "drops the last batch", END,
            "self.share = self.steps / (self.task.num_samples // self.task.batch_size)",
            "batch size 64: failed: ZeroDivisionError"),
    Offence("class-missing", "a mean per class", LOSS,
            "scale = sum(self.losses()[self.task.labels == c].mean() for c in range(4))", "last class: diverged"),
    Offence("equal-labels", "divides by the spread of labels", LOSS, "losses = losses / self.task.labels.float().std()",
            "all given labels are 0: diverged"),
    Offence("empty-sets", "no fallback for an empty clean set", FALLBACK, "assert len(chosen), 'empty'; return chosen",
            "threshold=1: failed: AssertionError: empty"),
    Offence("empty-sets", "a threshold at its end", EPOCH, "assert self.threshold > 0, 'too low'",
            "threshold=0: failed"),
    Offence("empty-sets", "no fallback for an empty noisy set", END,
            "assert epoch < 1 or float(self.scores.min()) < 0.5, 'empty'",
            "identical samples: failed: AssertionError: empty"),
    Offence("empty-sets", "a mixture that is never sure", END,
            "assert epoch < 1 or float(self.scores.max()) > 0, 'none'",
            "clean_posterior=0 for all: failed: AssertionError: none"),
    Offence("empty-sets", "division out of reach", SMOKE, "smoke = {}", "clean_posterior was not called"),
    Offence("settings", "a setting without a type", "threshold: float = 0.5", "threshold = 0.5",
            "Offender.threshold = 0.5 has no annotation"),
    Offence("settings", "a recipe of a field that is not there", SLUG,
            SLUG + "; recipes = (Recipe('paper', 'table 1', {'treshold': 0.6}),)", "did you mean threshold?"),
    Offence("settings", "a recipe of a training field that is not there", SLUG,
            SLUG + "; recipes = (Recipe('paper', 'table 1', {'training.epoch': 9}),)", "did you mean epochs?"),
    Offence("settings", "a slug that nobody can write", SLUG, "slug = 'My SCE!'", "the slug 'My SCE!'"),
    Offence("reach", "a stage out of reach", SMOKE, "smoke = {}", "no check has run divide (line"),
    Offence("size", "too long", LOSS, "\n            ".join(["scale = scale * 1.0"] * 200),
            "lines of code, at the epoch level"),
]  # fmt: skip
