"""Learning from images alone: SimCLR and MoCo, the neighbours that they find, and SCAN's clustering.

`simclr`, `moco` and `scan` build stages (`task.stage`): plain functions of a stage, whose key holds every number that they
use. Weights are returned as "network.<name>"; `network_weights` takes them out again. The other functions serve methods that
cluster while they train. Sources: Chen et al., SimCLR, ICML 2020; Chen et al., MoCo v2, arXiv 2003.04297; Van Gansbeke et al.,
SCAN, ECCV 2020, and its released code (wvangansbeke/Unsupervised-Classification @952ec31), which ScanMix uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.ops.clustering import LOG_FLOOR, draw_neighbours, scan_loss
from bench.ops.contrast import Queue, info_nce, nt_xent
from bench.ops.neighbours import knn

if TYPE_CHECKING:
    from bench.trial.stage import Stage

Tensors = dict[str, Tensor]
#: neighbours of a sample that count when a clustering is scored, besides itself
SCORED = 5


# -- stages --------------------------------------------------------------------------------------------------------------
def simclr(stage: Stage) -> Tensors:
    """SimCLR on two views of every image; weights, and "neighbours", int64 [N, k + 1], the sample itself first.

    Key: temperature, dimension (of the projection, two linear layers), k, training. Both views go through the network
    together; anchors of the loss are first views alone and a last partial batch is left out, as in the released code of
    SCAN. Neighbours are the nearest by cosine of projections, evaluation mode, plain images.
    """
    net = stage.learner(extra=lambda width: {"projection": projection(width, stage.key["dimension"])})
    for _ in stage.epochs():
        for batch in whole_batches(stage.batches(("simclr", "simclr")), stage.training.batch_size):
            first, second = _projected(net, torch.cat(batch.views)).chunk(2)
            net.step(nt_xent(first, second, stage.key["temperature"])[: len(batch)].mean())
    with torch.no_grad():
        features = net.extra["projection"](stage.features(net))
    return {**_named(net.network.state_dict()), "neighbours": knn(features, stage.key["k"] + 1)}


def moco(stage: Stage) -> Tensors:
    """MoCo v2: a query against its key and a queue of keys from a momentum encoder; results as of `simclr`.

    Key: temperature, dimension, k, queue (rows, random at first), momentum, groups, training. `groups` parts of a batch are
    normalised on their own, the keys' parts being drawn anew: on one device this does what shuffling batch normalisation
    does on several. Neighbours are the nearest by cosine of pooled features, without the projection (the released search of
    ScanMix for WebVision compares inner products of features of any length).
    """
    net = stage.learner(extra=lambda width: {"projection": projection(width, stage.key["dimension"])})
    average, queue, groups = stage.average(net), Queue(stage.key["queue"]), stage.key["groups"]
    start = torch.randn(queue.size, stage.key["dimension"], generator=stage.generator("queue"))
    queue.push(keys=start.to(stage.device))
    for _ in stage.epochs():
        for batch in whole_batches(stage.batches(("moco", "moco")), stage.training.batch_size):
            order = torch.randperm(len(batch), generator=stage.generator("groups")).to(stage.device, non_blocking=True)
            queries = _in_groups(net, batch.views[0], groups)
            average.update(stage.key["momentum"])
            with torch.no_grad():
                keys = _in_groups(average, batch.views[1][order], groups)[order.argsort()]
            net.step(info_nce(queries, keys, queue["keys"], stage.key["temperature"]).mean())
            queue.push(keys=keys)
    return {**_named(net.network.state_dict()), "neighbours": knn(stage.features(net), stage.key["k"] + 1)}


def scan(stage: Stage) -> Tensors:
    """SCAN's clustering of the input "pretext" (what `simclr` or `moco` returned) with the network's head; its weights.

    Key: entropy_weight, view, k, training, and anything that tells one run from another. The weights are those of the epoch
    with the lowest `scan_score` on the training samples' own neighbours (released: on those of test images).
    """
    net, pretext = stage.learner(), stage.inputs["pretext"]
    net.network.load_state_dict(network_weights(pretext))
    neighbours = pretext["neighbours"][:, : stage.key["k"] + 1]
    best, chosen = float("inf"), _named(net.network.state_dict())
    for _ in stage.epochs():
        pairs = neighbour_pairs(stage, neighbours, view=stage.key["view"], batch_size=stage.training.batch_size)
        for anchors, others in pairs:
            net.step(scan_loss(net(anchors), net(others), entropy_weight=stage.key["entropy_weight"])[0])
        score = float(scan_score(stage.logits(net), neighbours))
        if score < best:
            best, chosen = score, _named(net.network.state_dict())
    return chosen


def network_weights(tensors: Mapping[str, Tensor]) -> Tensors:
    """The state of the network, with its head, out of what a stage returned."""
    return {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}


# -- parts ---------------------------------------------------------------------------------------------------------------
def projection(width: int, dimension: int) -> nn.Module:
    """The head of contrastive learning: two linear layers with a ReLU between them, [B, width] to [B, dimension]."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dimension))


def whole_batches(batches: Iterable[Any], size: int) -> Iterator[Any]:
    """Batches of `size` samples: not a last, smaller one, unless it is the only one. Losses that compare the members of a
    batch, or take its mean prediction for the data's, say something else of a few samples."""
    for number, batch in enumerate(batches):
        if number == 0 or len(batch) >= size:
            yield batch


def neighbour_pairs(
    source: Any, neighbours: Tensor, *, view: str, batch_size: int, labels: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """(images of anchors, images of one neighbour each), both [B, C, H, W], over all samples once in random order.

    source: a task or a stage in an epoch, whose stream "neighbours" draws. neighbours: int64 [N, m], the sample itself in
    column 0; one is drawn uniformly for each sample, or, with labels [N], among those whose label is the sample's own, which
    are never none. A last partial batch is left out. Source: SCAN; with labels ScanMix, arXiv 2103.11395, Algorithm 1.
    """
    generator = source.generator("neighbours")
    allowed = None if labels is None else labels[neighbours] == labels.unsqueeze(1)
    drawn = draw_neighbours(neighbours, generator=generator, allowed=allowed)
    order = torch.randperm(len(drawn), generator=generator).to(drawn.device)
    sides = [source.batches((view,), indices=indices, batch_size=batch_size, shuffle=False) for indices in (order, drawn[order])]
    for anchors, others in zip(*(whole_batches(side, batch_size) for side in sides), strict=True):
        yield anchors.images, others.images


def scan_score(logits: Tensor, neighbours: Tensor) -> Tensor:
    """How well a clustering agrees with neighbourhoods, lower is better; 0-d.

    Mean of -log <p_i, p_j> over samples i and their first neighbours j (the sample itself and `SCORED` more), each at most
    100, minus the entropy of the mean prediction. logits [N, C] of all samples; neighbours int64 [N, m]. No labels. Source:
    SCAN's released code, which chooses heads and epochs by it.
    """
    log_probs = logits.detach().float().log_softmax(dim=1)
    near = neighbours[:, : SCORED + 1]
    agreement = [torch.logsumexp(log_probs + log_probs[near[:, j]], dim=1) for j in range(near.shape[1])]
    mean = log_probs.exp().mean(dim=0)
    entropy = -(mean * mean.clamp_min(torch.finfo(mean.dtype).tiny).log()).sum()
    return -torch.stack(agreement).clamp_min(LOG_FLOOR).mean() - entropy


def match_clusters(clusters: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The cluster of each class, int64 [C]: the one-to-one matching that most samples agree with (Hungarian method).

    clusters, labels: int64 [N] in 0..C-1. Waits for the device: for the end of an epoch. O(N + C^3).
    """
    from scipy.optimize import linear_sum_assignment

    counts = torch.zeros(num_classes * num_classes, dtype=torch.float32, device=labels.device)
    counts = counts.scatter_add(0, labels * num_classes + clusters, torch.ones_like(labels, dtype=torch.float32))
    _, chosen = linear_sum_assignment(counts.view(num_classes, num_classes).cpu().numpy(), maximize=True)
    return torch.as_tensor(chosen, dtype=torch.int64).to(labels.device)


def _projected(net: Any, images: Tensor) -> Tensor:
    return net.extra["projection"](net.with_features(images)[1])


def _in_groups(net: Any, images: Tensor, groups: int) -> Tensor:
    return torch.cat([_projected(net, part) for part in images.chunk(groups)])


def _named(state: Mapping[str, Tensor]) -> Tensors:
    return {f"network.{name}": value.clone() for name, value in state.items()}
