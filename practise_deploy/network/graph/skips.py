"""Skips: the terms of sums that bring a unit's input to its end, as it is, scaled, or with other branches added."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import fx

from practise_deploy.network.graph.operators import (
    is_computed,
    is_difference,
    is_idle,
    is_sum,
    operation_name,
    shape_of,
)
from practise_deploy.network.graph.scalings import product_of, scaled_by_number, stored

_SELECTIONS = {"getitem", "select", "view", "reshape", "unsqueeze"}


@dataclass(frozen=True, slots=True)
class Skip:
    """The skip of a sum, and its other term, the branch that is computed from what the skip brings.

    term: what the sum is without the branch. base: what the branch is computed from, and the term but for factors and other branches.
    joined: the sums of other branches between the two. weighting: why the term would not do without the branch; empty where it would.
    """

    term: fx.Node
    branch: fx.Node
    base: fx.Node
    joined: tuple[fx.Node, ...]
    weighting: str


def _dominators(traced: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Immediate dominator of every value that depends on the input (edges through non-tensors do not count)."""
    parent: dict[fx.Node, fx.Node] = {}
    depth: dict[fx.Node, int] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder" and not depth:
            depth[node] = 0
        sources = [n for n in node.all_input_nodes if n in depth and is_computed(n)]
        if not sources or node.op == "output":
            continue
        common = sources[0]
        for other in sources[1:]:
            while common is not other:
                if depth[common] >= depth[other]:
                    common = parent[common]
                else:
                    other = parent[other]
        parent[node], depth[node] = common, depth[common] + 1
    return parent


class Flow:
    """What is computed from what in a traced network, and the skips of its sums.

    dominator: the immediate dominator of every value that depends on the input (edges through non-tensors do not count).
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced, self.dominator = traced, _dominators(traced)
        self._bit = {node: 1 << number for number, node in enumerate(traced.graph.nodes)}
        self._before: dict[fx.Node, int] = {}
        for node in traced.graph.nodes:
            self._before[node] = 0
            for source in filter(is_computed, node.all_input_nodes):
                self._before[node] |= self._before[source] | self._bit[source]
        self.skips: dict[fx.Node, Skip] = {}
        self._joined_in: dict[fx.Node, fx.Node] = {}
        for node in traced.graph.nodes:
            if self.is_sum(node) and (skip := self._skip(node)):
                self.skips[node] = skip
                self._joined_in |= dict.fromkeys(skip.joined, node)

    def end_of(self, addition: fx.Node) -> fx.Node:
        """The last sum of those that add branches of one value to it one after another."""
        while addition in self._joined_in:
            addition = self._joined_in[addition]
        return addition

    def is_sum(self, node: fx.Node) -> bool:
        """Whether a value is the sum or the difference of two that depend on the input: no mere bias."""
        return is_sum(node) and all(self.depends_on_input(source) for source in node.all_input_nodes)

    def precedes(self, first: fx.Node, second: fx.Node) -> bool:
        """Whether the second value is computed from the first, and not just from its size."""
        return bool(self._before[second] & self._bit[first])

    def depends_on_input(self, node: fx.Node) -> bool:
        """Whether a value is the input, or computed from it."""
        return node in self.dominator or node.op == "placeholder"

    def _skip(self, addition: fx.Node) -> Skip | None:
        """The skip of a sum; of two terms that could be one, both brought by skips, the later."""
        first, second = addition.args[:2]
        assert isinstance(first, fx.Node) and isinstance(second, fx.Node)
        found = [self._skip_by(first, second), self._skip_by(second, first)]
        skip = max((skip for skip in found if skip), key=lambda skip: self._bit[skip.term], default=None)
        if skip and is_difference(addition) and skip.branch is first:
            return replace(skip, weighting="it subtracts its input, whose sign would change without the rest")
        return skip

    def _is_negated(self, addition: fx.Node) -> bool:
        """Whether a sum subtracts its skip."""
        return is_difference(addition) and self.skips[addition].branch is addition.args[0]

    def _skip_by(self, term: fx.Node, branch: fx.Node) -> Skip | None:
        """The skip where this term is one."""
        value, joined, weighting, scaled = term, list[fx.Node](), "", False
        while not self.precedes(value, branch) and value is not branch:
            if value in self.skips and len(value.users) == 1 and not self._is_negated(value):
                joined.append(value)
                value, weighting = self.skips[value].base, weighting or self.skips[value].weighting
            elif is_idle(self.traced, value):
                value = value.all_input_nodes[0]
            elif scaling := self._scaling(value, branch):
                value, weighting, scaled = scaling[0], weighting or scaling[1], True
            else:
                return None
        return Skip(term if scaled or joined else value, branch, value, tuple(joined), weighting)

    def _scaling(self, value: fx.Node, branch: fx.Node) -> tuple[fx.Node, str] | None:
        """What a value is a multiple of, and what is wrong with the factors, if anything."""
        if by_number := scaled_by_number(self.traced, value):
            return by_number[0], ""
        for scaled, factor in _both_ways(product_of(value)):
            if (
                not isinstance(scaled, fx.Node)
                or not isinstance(factor, fx.Node)
                or shape_of(scaled) != shape_of(value)
            ):
                continue
            if self.depends_on_input(scaled) and not self.depends_on_input(factor):
                return scaled, "" if stored(factor) else _weighted_by(factor)
            if self.precedes(scaled, branch) and self.precedes(scaled, factor):
                return scaled, "its input is multiplied by a gate, and would stay so without the rest"
        return None


def _both_ways(pair: tuple[object, object] | None) -> list[tuple[object, object]]:
    return [pair, pair[::-1]] if pair else []


def _weighted_by(factor: fx.Node) -> str:
    """The reason where the factors are computed from weights, as those of a weighted sum are."""
    while operation_name(factor) in _SELECTIONS and factor.all_input_nodes:
        factor = factor.all_input_nodes[0]
    name = operation_name(factor) or "a module"
    return f"its terms are weighted by {name}: its input would stay multiplied by its own weight without the rest"
