"""Refitting a whole pruned network: every stream value behind the cuts, in order, on the student's own activations."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from practise_backends.terms import Progress
from practise_deploy.model.blocks import is_addition
from practise_deploy.model.images import FitImages
from practise_deploy.model.pair import Pair, feature_in
from practise_deploy.model.surgery import drop_blocks, junctions, weights_of
from practise_deploy.model.trace import module_of, shape_of
from practise_deploy.model.values import Env, batches, compute, input_of, logits_of, named, order_of
from practise_deploy.planning.refit import (
    NormalEquations,
    Sampler,
    Site,
    Writer,
    at_positions,
    before_activation,
    junction_site,
    readers_of,
    rows_for,
    solve_site,
    values_for,
    writers_into,
)
from practise_deploy.terms import Block, Student

RIDGES = (0.01, 0.1, 1.0, 3.0)
_BATCH = 16


def recover(
    teacher: fx.GraphModule,
    feature: str,
    dropped: Sequence[Block],
    images: FitImages,
    seed: int,
    progress: Progress,
) -> Student:
    """Drop the blocks and refit in sequence everything behind the cuts, with the ridge of least held-out error.

    The plain drop competes too: with few images an under-determined refit is worse than none.
    """
    began = time.monotonic()
    learn, judge = images.split(seed)
    plain = drop_blocks(teacher, dropped)
    name = feature_in(plain, feature, junctions(plain, dropped))
    size = 64
    pair = Pair(plain, teacher, name, feature)
    before = pair.error(judge, size)
    best, best_error, method = plain, before, "plain drop (every refit was worse on the images kept aside)"
    tried = [f"plain {before:.4g}"]
    ground = survey(plain, teacher, sites_of(plain, teacher, dropped, feature), learn.batch, len(learn))
    for number, ridge in enumerate(RIDGES):
        student = drop_blocks(teacher, dropped)
        sites = sites_of(student, teacher, dropped, feature)

        def advance(done: int, number: int = number, sites: list[Site] = sites) -> None:
            progress.advance(number + done / max(1, len(sites)), len(RIDGES), f"ridge {RIDGES[number]:g}")

        refit_in_sequence(student, sites, ground, ridge, advance)
        error = replace(pair, student=student).error(judge, size)
        tried.append(f"ridge {ridge:g} {error:.4g}")
        if error < best_error:
            best, best_error = student, error
            method = f"sequential refit of {len(sites)} sums, ridge {ridge:g}"
    return Student(
        dropped=tuple(block.name for block in dropped),
        method=method,
        mse_before=before,
        mse=best_error,
        steps=0,
        seconds=time.monotonic() - began,
        notes=("error on the images kept aside: " + ", ".join(tried),),
        weights=weights_of(best),
    )


def sites_of(student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block], feature: str) -> list[Site]:
    """All places to refit, in order: the cuts, and every stream value behind the first of them."""
    cuts = junctions(student, dropped)
    found = [
        site for entry, exit_ in cuts.items() if (site := junction_site(student, teacher, entry, exit_)) is not None
    ]
    taken = {site.value.name for site in found}
    touched = {*cuts, *taken}
    last = feature_in(student, feature, cuts)
    found += [site for site in later_sites(student, teacher, touched, last) if site.value.name not in taken]
    order = {node.name: place for place, node in enumerate(student.graph.nodes)}
    return sorted(found, key=lambda site: order[site.value.name])


def later_sites(student: fx.GraphModule, teacher: fx.GraphModule, after: Iterable[str], feature: str) -> list[Site]:
    """Stream values downstream of the cuts, in order: sums, linear block outputs, and what makes the feature map."""
    touched = {name for name in after}
    known = {node.name for node in teacher.graph.nodes}
    last = before_activation(student, named(student, feature))
    sites = []
    for node in student.graph.nodes:
        if not any(source.name in touched for source in node.all_input_nodes):
            continue
        touched.add(node.name)
        if node.name in known and (is_addition(node) or node is last or _is_linear_output(student, node)):
            writers = writers_into(student, node)
            if writers:
                sites.append(Site(node, writers, node.name))
    return sites


def _is_linear_output(traced: fx.GraphModule, node: fx.Node) -> bool:
    """A convolution's output, normalised, that convolutions read as it is and that is not just a term of a sum."""
    ends = isinstance(module_of(traced, node), nn.BatchNorm2d) and len(shape_of(node) or ()) == 4
    readers = readers_of(traced, node)
    convolves = any(isinstance(module_of(traced, reader), nn.Conv2d) for reader in readers)
    return ends and convolves and not (len(readers) == 1 and is_addition(readers[0]))


@dataclass(frozen=True, slots=True)
class Ground:
    """What every refit of one pruned network shares, whatever its ridge.

    targets: the teacher's values at the drawn positions by site, [n, positions, channels] a batch.
    frontier: by batch, the student's values just before the first site, which no refit changes.
    """

    sampler: Sampler
    targets: dict[str, list[Tensor]]
    frontier: list[Env]


def survey(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    sites: Sequence[Site],
    images: Callable[[slice], Tensor],
    count: int,
) -> Ground:
    """One pass of the teacher for all targets, one of the student up to the first site.

    images: normalised inputs by slice.
    """
    sampler = Sampler(count, 0)
    start = input_of(student).name
    frontier: list[Env] = []
    with torch.no_grad():
        targets = _sampled_targets(teacher, sites, images, count, sampler)
        done = _before(student, sites)
        for part in batches(count, _BATCH):
            frontier.append(_move_to(student, done, {start: images(part)}, sites))
    return Ground(sampler, targets, frontier)


def refit_in_sequence(
    student: fx.GraphModule,
    sites: Sequence[Site],
    ground: Ground,
    ridge: float,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Re-solve the sites in order, each on the student's activations as they are by then.

    Every solve removes the error that has gathered so far.
    """
    nodes = list(student.graph.nodes)
    frontier = ground.frontier
    with torch.no_grad():
        for number, site in enumerate(sites):
            equations = NormalEquations()
            order = order_of(values_for(site), frontier[0])
            keep = frozenset(node.name for node in values_for(site))
            for env, wanted in zip(frontier, ground.targets[site.value.name], strict=True):
                values = compute(student, order, env, keep)
                equations.add(*rows_for(student, site, values, wanted, ground.sampler))
            solve_site(student, site, equations, ridge)
            done = nodes[: nodes.index(site.value) + 1]
            frontier = [_move_to(student, done, env, sites[number + 1 :]) for env in frontier]
            advance(number + 1)


def _sampled_targets(
    teacher: fx.GraphModule,
    sites: Sequence[Site],
    images: Callable[[slice], Tensor],
    count: int,
    sampler: Sampler,
) -> dict[str, list[Tensor]]:
    wanted = {site.value.name: named(teacher, site.target) for site in sites}
    keep = frozenset(node.name for node in wanted.values())
    start = input_of(teacher).name
    nodes = order_of(wanted.values(), {start})
    found: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for part in batches(count, _BATCH):
        values = compute(teacher, nodes, {start: images(part)}, keep)
        for name, node in wanted.items():
            found[name].append(at_positions(values[node.name], sampler.positions(node)))
    return found


def _before(traced: fx.GraphModule, sites: Sequence[Site]) -> list[fx.Node]:
    """The nodes to run before the first site: as many as leave no more in memory than twice the site's own value."""
    nodes = list(traced.graph.nodes)
    last = min((nodes.index(w.convolution) for site in sites for w in site.writers), default=0)
    room = 2 * math.prod(shape_of(sites[0].value) or (0,)) if sites else 0
    for stop in range(last, 1, -1):
        live = _live(traced, nodes[:stop], sites)
        if sum(math.prod(shape_of(node) or (0,)) for node in live) <= room:
            return nodes[:stop]
    return nodes[:1]


def _move_to(traced: fx.GraphModule, done: Sequence[fx.Node], env: Env, later: Sequence[Site]) -> Env:
    """The known values moved to just behind the nodes that are done: what the rest of the network still needs."""
    live = _live(traced, done, later)
    return compute(traced, order_of(live, env), env, frozenset(n.name for n in live))


def _live(traced: fx.GraphModule, done: Sequence[fx.Node], later: Sequence[Site]) -> list[fx.Node]:
    """What the rest of the network needs of the nodes that are done.

    What writers of later sites give is not among it, as it will change: their inputs are.
    """
    before = set(done)
    needed = _needed_for_output(traced)
    to_come = {node for site in later for writer in site.writers for node in _span(writer)}
    return [
        n
        for n in done
        if n in needed and n.op != "get_attr" and n not in to_come
        and any(user in needed and (user not in before or user in to_come) for user in n.users)
    ]  # fmt: skip


def _span(writer: Writer) -> list[fx.Node]:
    """The values from a writer's convolution to its output."""
    found = [writer.output]
    while found[-1] is not writer.convolution:
        found.append(found[-1].all_input_nodes[0])
    return found


def _needed_for_output(traced: fx.GraphModule) -> set[fx.Node]:
    return set(order_of([logits_of(traced)], set()))
