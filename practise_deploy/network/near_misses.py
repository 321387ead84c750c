"""What looks like a residual unit and is none: where a value and what is made of it meet otherwise than in a sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import fx

from practise_deploy.network.attention import decides_on_values
from practise_deploy.network.operators import is_computed, is_networks_own, module_of, shape_of
from practise_deploy.network.units import Unit, has_weights, unit_at, written

_JOINS = {"cat", "concat", "concatenate", "stack", "hstack"}
_SUBTRACTS = {"sub", "subtract", "rsub"}


def near_misses(
    traced: fx.GraphModule, dominator: Mapping[fx.Node, fx.Node], units: Sequence[Unit]
) -> Iterator[tuple[Unit, str]]:
    """The smallest near misses outside of all units, in order, each with the reason why it is no unit."""
    taken = {node for unit in units for node in unit.nodes}
    for node, entry in dominator.items():
        sources = [each for each in node.all_input_nodes if is_computed(each) and (each in dominator or each is entry)]
        if node in taken or not (reason := _reason(traced, node, entry, sources)):
            continue
        found = unit_at(traced, node, dominator)
        if taken.isdisjoint(found.nodes) and has_weights(traced, found.nodes):
            taken.update(found.nodes)
            yield found, reason


def _reason(traced: fx.GraphModule, node: fx.Node, entry: fx.Node, sources: list[fx.Node]) -> str:
    """Why what ends in this value is no unit; nothing where it does not look like one."""
    before, after = shape_of(entry), shape_of(node)
    if len(sources) == 1:
        looks = before == after is not None and _is_whole(traced, node)
        return "it could not be looked into, and may hold residual units" if looks else ""
    if _operation(node) in _JOINS and shape_of(sources[0]):
        how = f": {written(before)} in, {written(after)} out" if before else ""
        return f"its branches are concatenated, not added{how}"
    if entry not in sources or len(sources) != 2:
        return ""
    shapes = [shape_of(source) or () for source in sources]
    if _operation(node) == "add":
        return _why_no_sum(shapes)
    return _other_meeting(node, entry) if {*shapes} == {after} else ""


def _why_no_sum(shapes: list[tuple[int, ...]]) -> str:
    """Why the sum of a value and of what is made of it ends no unit."""
    if shapes[0] != shapes[1]:
        return f"its sum is of two shapes: {written(shapes[0])} and {written(shapes[1])}"
    if len(shapes[0]) > 2:
        return "its sum multiplies a term (alpha)"
    return f"its sum is of vectors, not of maps or tokens: {written(shapes[0])} numbers each"


def _other_meeting(node: fx.Node, entry: fx.Node) -> str:
    """What a value and another of its shape that is made of it meet in."""
    operation = _operation(node)
    if node.op == "call_module":
        return f"its terms meet in a module that could not be looked into: {node.target}"
    if operation not in _SUBTRACTS:
        return f"its terms meet in {operation}, not in a sum"
    if node.args[0] is not entry:
        return "it subtracts its input, whose sign would change without the rest"
    return "its terms are subtracted, and no weights right before can take the sign: x + (-f(x)) would do"


def _operation(node: fx.Node) -> str:
    """What a value is computed by, as torch and Python name it, such as add; nothing for a module."""
    if node.op == "call_module":
        return ""
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return target.partition(".")[0].strip("_")


def _is_whole(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether it is a module that tracing left whole, and that holds more than a number for each channel."""
    module = module_of(traced, node)
    if module is None or not (is_networks_own(module) or decides_on_values(module)):
        return False
    return any(sum(side > 1 for side in weight.shape) > 1 for weight in module.parameters())
