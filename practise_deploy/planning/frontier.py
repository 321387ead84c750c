"""How far a pruned network has been computed: the values just before the next site, for every batch.

What lies before a site that is being refitted does not change any more, so it is computed once and kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import fx

from practise_deploy.model.trace import shape_of
from practise_deploy.model.values import Env, compute, logits_of, order_of
from practise_deploy.planning.writers import Site, Writer


def before(traced: fx.GraphModule, sites: Sequence[Site]) -> list[fx.Node]:
    """The nodes to run before the first site: as many as leave no more in memory than twice the site's own value."""
    nodes = list(traced.graph.nodes)
    last = min((nodes.index(w.convolution) for site in sites for w in site.writers), default=0)
    room = 2 * math.prod(shape_of(sites[0].value) or (0,)) if sites else 0
    for stop in range(last, 1, -1):
        live = _live(traced, nodes[:stop], sites)
        if sum(math.prod(shape_of(node) or (0,)) for node in live) <= room:
            return nodes[:stop]
    return nodes[:1]


def moved(traced: fx.GraphModule, done: Sequence[fx.Node], envs: Sequence[Env], later: Sequence[Site]) -> list[Env]:
    """The known values moved to just behind the nodes that are done: what the rest of the network still needs.

    envs: of several batches, all of the same values.
    """
    if not envs:
        return []
    live = _live(traced, done, later)
    order, keep = order_of(live, envs[0]), frozenset(node.name for node in live)
    return [compute(traced, order, env, keep) for env in envs]


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
