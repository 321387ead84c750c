"""Near misses: what resembles a residual unit, but does not end in the sum of a value and a function of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx

from practise_deploy.network.graph.attention import decides_on_values
from practise_deploy.network.graph.operators import is_computed, is_custom_module, module_of, operation_name, shape_of
from practise_deploy.network.graph.skips import Flow
from practise_deploy.network.units.units import Unit, format_shape, has_weights, unit_at

_CONCATENATIONS = {"cat", "concat", "concatenate", "stack", "hstack"}
_SUMS = {"add", "sub", "subtract"}


def near_misses(traced: fx.GraphModule, flow: Flow, units: Sequence[Unit]) -> Iterator[tuple[Unit, str]]:
    """The smallest near misses outside of all units, in order, each with the reason why it is no unit."""
    covered = {node for unit in units for node in unit.nodes}
    for node, entry in flow.dominator.items():
        sources = [n for n in node.all_input_nodes if is_computed(n) and (n in flow.dominator or n is entry)]
        if node in covered or not (reason := _reason(traced, node, entry, sources)):
            continue
        candidate = unit_at(traced, node, flow)
        if covered.isdisjoint(candidate.nodes) and has_weights(traced, candidate.nodes):
            covered.update(candidate.nodes)
            yield candidate, reason


def _reason(traced: fx.GraphModule, node: fx.Node, entry: fx.Node, sources: list[fx.Node]) -> str:
    """Why what ends in this value is no unit; empty where it does not resemble one."""
    before, after = shape_of(entry), shape_of(node)
    if len(sources) == 1:
        is_candidate = before == after is not None and _is_residual_leaf(traced, node)
        return "it could not be looked into, and may hold residual units" if is_candidate else ""
    if operation_name(node) in _CONCATENATIONS and shape_of(sources[0]):
        if _is_summed(node):
            return "its branches are stacked and then summed: x + f(x) would do"
        shapes_text = f": {format_shape(before)} in, {format_shape(after)} out" if before else ""
        return f"its branches are concatenated, not added{shapes_text}"
    if entry not in sources or len(sources) != 2:
        return ""
    shapes = [shape_of(source) or () for source in sources]
    if operation_name(node) in _SUMS:
        return _sum_reason(shapes)
    return _join_reason(node) if {*shapes} == {after} else ""


def _is_summed(node: fx.Node) -> bool:
    """Whether all that is done with stacked values is that they are added up."""
    return operation_name(node) == "stack" and {operation_name(user) for user in node.users} == {"sum"}


def _sum_reason(shapes: list[tuple[int, ...]]) -> str:
    """Why the sum of a value and of what is made of it ends no unit."""
    if shapes[0] != shapes[1]:
        return f"its sum is of two shapes: {format_shape(shapes[0])} and {format_shape(shapes[1])}"
    return f"its sum is of vectors, not of maps or tokens: {format_shape(shapes[0])} numbers each"


def _join_reason(node: fx.Node) -> str:
    """Why a value and a function of it, of one shape, form no sum."""
    if node.op == "call_module":
        return f"its terms meet in a module that could not be looked into: {node.target}"
    return f"its terms meet in {operation_name(node)}, not in a sum"


def _is_residual_leaf(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node calls a leaf module with weights beyond one number per channel."""
    module = module_of(traced, node)
    if module is None or not (is_custom_module(module) or decides_on_values(module)):
        return False
    return any(sum(side > 1 for side in weight.shape) > 1 for weight in module.parameters())
