"""How well the network recovers from losing each block, R(B) in the paper (section 3.2), without SGD.

One pass of the teacher sums the normal equations of all blocks. Then, on images that were not used for it, the
part behind each cut is replayed with every candidate ridge, from the teacher's own values; the error is taken
at the pre-pooling features, because the error at the cut does not tell the error at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from practise_backends.intervals import bootstrap
from practise_backends.terms import Interval, Progress
from practise_deploy.errors import InputError
from practise_deploy.model.images import FitImages
from practise_deploy.model.surgery import drop_blocks
from practise_deploy.model.values import Env, batches, compute, downstream, input_of, named, order_of
from practise_deploy.planning.refit import (
    NormalEquations,
    Sampler,
    Site,
    at_positions,
    folded,
    junction_site,
    rows_for,
    values_for,
)
from practise_deploy.terms import Block, Recoverability

RIDGES = (0.001, 0.01, 0.1, 1.0)


@dataclass(slots=True)
class _Candidate:
    """A block, the network without it, and what its writer would be for every ridge."""

    block: Block
    student: fx.GraphModule
    site: Site | None
    equations: NormalEquations
    errors: dict[str, list[Tensor]]


def measure_recoverability(
    teacher: fx.GraphModule,
    feature: str,
    blocks: Sequence[Block],
    images: FitImages,
    seed: int,
    progress: Progress,
) -> tuple[Recoverability, ...]:
    """R of every block: the least held-out error over {plain drop, writer refit with each ridge}."""
    learn, judge = images.split(seed)
    candidates = [_candidate(teacher, block) for block in blocks]
    size = batch_size(images)
    total = math.ceil(len(learn) / size) + math.ceil(len(judge) / size) * (1 + len(blocks))
    done = 0
    with torch.no_grad():
        sampler = Sampler(len(learn), seed)
        for part in batches(len(learn), size):
            _sum_equations(teacher, candidates, learn.batch(part), sampler)
            progress.advance(done := done + 1, total, "summing normal equations")
        refits = [_refits(teacher, candidate) for candidate in candidates]
        spread: list[Tensor] = []
        for part in batches(len(judge), size):
            env = _all_values(teacher, judge.batch(part))
            spread.append(env[feature].flatten(1).var(1))
            for candidate, solutions in zip(candidates, refits, strict=True):
                _judge(teacher, candidate, solutions, env, feature)
                progress.advance(done := done + 1, total, f"replaying without {candidate.block.name}")
            done += 1
    variance = float(torch.cat(spread).mean())
    return tuple(_conclude(candidate, variance, len(learn)) for candidate in candidates)


def batch_size(images: FitImages) -> int:
    """Images a pass: as many as keep all values of a network in memory."""
    return 8 if images.pixels.shape[-1] > 64 else 64


def squared_errors(wanted: Tensor, found: Tensor) -> Tensor:
    """Mean squared error of every image. Shapes: [n, ...] -> [n]."""
    return (wanted - found).float().flatten(1).square().mean(1)


def mean_interval(errors: np.ndarray) -> Interval:
    """The mean over images with its interval: bootstrap, or the normal approximation below 10 images."""
    if len(errors) >= 10:
        return bootstrap(errors, lambda sample: np.asarray(sample.mean(-1)))
    mean, half = (
        float(errors.mean()),
        1.96 * float(errors.std(ddof=min(1, len(errors) - 1))) / math.sqrt(len(errors)),
    )
    return Interval(estimate=mean, low=max(0.0, mean - half), high=mean + half, confidence=0.95)


def _candidate(teacher: fx.GraphModule, block: Block) -> _Candidate:
    student = drop_blocks(teacher, [block], share_weights=True)
    return _Candidate(block, student, junction_site(teacher, teacher, block.entry, block.exit), NormalEquations(), {})


def _sum_equations(teacher: fx.GraphModule, candidates: Sequence[_Candidate], images: Tensor, sampler: Sampler) -> None:
    sites = [c.site for c in candidates if c.site is not None]
    wanted = [node for site in sites for node in (*values_for(site), named(teacher, site.target))]
    if not wanted:
        return
    start = input_of(teacher).name
    env = compute(teacher, order_of(wanted, {start}), {start: images}, frozenset(node.name for node in wanted))
    for candidate in candidates:
        if candidate.site is not None:
            target = at_positions(env[candidate.site.target], sampler.positions(candidate.site.value))
            candidate.equations.add(*rows_for(teacher, candidate.site, env, target, sampler))


def _refits(teacher: fx.GraphModule, candidate: _Candidate) -> dict[str, Tensor]:
    """Name of the method -> change of the writers' joint solution, relative to the folded weights."""
    if candidate.site is None:
        return {}
    starts = [folded(teacher, writer) for writer in candidate.site.writers]
    start = torch.cat([*(each[:-1] for each in starts), torch.stack([each[-1] for each in starts]).sum(0)[None]])
    dtype = next(teacher.parameters()).dtype
    return {f"refit, ridge {ridge:g}": (candidate.equations.solve(ridge, start) - start).to(dtype) for ridge in RIDGES}


def _all_values(teacher: fx.GraphModule, images: Tensor) -> Env:
    start = input_of(teacher).name
    nodes = order_of([n for n in teacher.graph.nodes if n.op not in ("placeholder", "output", "get_attr")], {start})
    return compute(teacher, nodes, {start: images}, frozenset(node.name for node in teacher.graph.nodes))


def _judge(
    teacher: fx.GraphModule, candidate: _Candidate, solutions: dict[str, Tensor], env: Env, feature: str
) -> None:
    goal = env[feature]
    plain = _replay(candidate, env, candidate.block.entry, env[candidate.block.entry], feature)
    candidate.errors.setdefault("plain", []).append(squared_errors(goal, plain))
    for method, change in solutions.items():
        assert candidate.site is not None
        value = env[candidate.site.value.name] + _changed(teacher, candidate.site, change, env)
        found = _replay(candidate, env, candidate.site.value.name, value, feature)
        candidate.errors.setdefault(method, []).append(squared_errors(goal, found))


def _changed(teacher: fx.GraphModule, site: Site, change: Tensor, env: Env) -> Tensor:
    """What a change of the writers' weights adds to the value they write."""
    total, begin = change[-1].view(1, -1, 1, 1), 0
    for writer in site.writers:
        convolution = teacher.get_submodule(str(writer.convolution.target))
        assert isinstance(convolution, nn.Conv2d)
        rows = change[begin : (begin := begin + convolution.weight[0].numel())]
        kernel = rows.T.reshape(convolution.weight.shape)
        total = total + nn.functional.conv2d(
            env[writer.source.name],
            kernel,
            None,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
        )
    return total


def _replay(candidate: _Candidate, env: Env, changed: str, value: Tensor, feature: str) -> Tensor:
    """The feature map of the network without the block, from one changed value on."""
    student = candidate.student
    alive = {node.name: node for node in student.graph.nodes}
    if feature not in alive:  # the last block went, and its entry is the feature map now
        feature = candidate.block.entry
    affected = downstream(alive[changed]) if changed in alive else set()
    known: Env = {name: env[name] for name in alive if name in env and name not in affected}
    known[changed] = value
    nodes = order_of([alive[feature]], known)
    return compute(student, nodes, known, frozenset({feature}))[feature]


def _conclude(candidate: _Candidate, variance: float, fit_images: int) -> Recoverability:
    errors = {method: torch.cat(parts).double().numpy() for method, parts in candidate.errors.items()}
    if not np.isfinite(errors["plain"]).all():
        raise InputError(
            f"the features of the network without {candidate.block.name} are no numbers on some images",
            remedy="check --mean and --std, and the weights",
        )
    errors = {method: found for method, found in errors.items() if np.isfinite(found).all()}
    method = min(errors, key=lambda name: float(errors[name].mean()))
    return Recoverability(
        block=candidate.block.name,
        mse=mean_interval(errors[method]),
        mse_dropped=float(errors["plain"].mean()),
        relative=float(errors[method].mean()) / variance if variance else math.nan,
        fit_images=fit_images,
        judged_images=len(errors[method]),
        method=method if candidate.site is not None else "plain (no linear writer before the cut)",
    )
