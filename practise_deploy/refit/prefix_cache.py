"""How far a pruned network has been computed: the values just before the next point, for every batch.

What lies before a point that is being refitted does not change any more, so it is computed once and kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import fx

from practise_deploy.network.graph.activations import compute, nodes_to_compute
from practise_deploy.network.graph.execution import Env
from practise_deploy.network.graph.heads import ends_of
from practise_deploy.network.graph.operators import shape_of
from practise_deploy.refit.writers import ReconstructionPoint

ROOM = 1 << 28


def before(
    traced: fx.GraphModule, points: Sequence[ReconstructionPoint], images: int, reached: int = 1
) -> list[fx.Node]:
    """The nodes to run before the first of these points, at least so many as are reached.

    As many as leave ROOM bytes in memory for so many images, or twice the point's own value where that is more.
    """
    nodes = list(traced.graph.nodes)
    last = min((nodes.index(w.operator) for point in points for w in point.writers), default=0)
    value_numbers = _numbers([point.value for point in points[:1]])
    room = max(2 * value_numbers, ROOM // (4 * max(1, images)))
    for stop in range(last, reached, -1):
        if _numbers(live(traced, nodes[:stop], points)) <= room:
            return nodes[:stop]
    return nodes[:reached]


def _numbers(values: Sequence[fx.Node]) -> int:
    """How many numbers an image has in them."""
    return sum(math.prod((shape_of(node) or (0,))[1:]) for node in values)


def moved(
    traced: fx.GraphModule, done: Sequence[fx.Node], envs: Sequence[Env], later: Sequence[ReconstructionPoint]
) -> list[Env]:
    """The known values moved to just behind the nodes that are done: what the rest of the network still needs.

    envs: of several batches, all of the same values.
    """
    if not envs:
        return []
    kept = live(traced, done, later)
    order, keep = nodes_to_compute(kept, envs[0]), frozenset(node.name for node in kept)
    return [compute(traced, order, env, keep) for env in envs]


def until_cut(student: fx.GraphModule, done: Sequence[fx.Node], cuts: Iterable[str]) -> list[fx.Node]:
    """Of the nodes that are done those before the first cut: up to there the student is its teacher.

    cuts: the entries of what was dropped; those that went with another block do not count.
    """
    places = {node.name: number for number, node in enumerate(student.graph.nodes, 1)}
    return list(done[: min((places[entry] for entry in cuts if entry in places), default=len(done))])


def live(traced: fx.GraphModule, done: Sequence[fx.Node], later: Sequence[ReconstructionPoint]) -> list[fx.Node]:
    """What the rest of the network needs of the nodes that are done, and its outputs, once they are among them.

    What writers of later points give is not among it, as it will change: their inputs are.
    """
    before = set(done)
    ends = ends_of(traced)
    needed = set(nodes_to_compute(ends, set()))
    to_come = {node for point in later for writer in point.writers for node in writer.span}
    return [
        n
        for n in done
        if n in needed and n.op != "get_attr" and n not in to_come
        and (n in ends or any(user in needed and (user not in before or user in to_come) for user in n.users))
    ]  # fmt: skip
