"""Where a pruned network can be refitted: at its cuts, and at every stream value behind the first of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import fx, nn

from practise_deploy.model.operators import is_addition, is_relu, module_of, shape_of
from practise_deploy.model.pair import feature_in
from practise_deploy.model.surgery import junctions
from practise_deploy.model.values import named
from practise_deploy.planning.writers import Site, as_it_was, before_activation, readers_of, writers_into
from practise_deploy.terms import Block


def junction_site(student: fx.GraphModule, teacher: fx.GraphModule, entry: str, exit_: str) -> Site | None:
    """Where a cut can be refitted: the value that stays, and the teacher's value it stands for.

    None where nothing linear writes it (a stem behind max pooling), or activations differ on both sides.
    """
    kept, goal = as_it_was(student, named(student, entry)), as_it_was(teacher, named(teacher, exit_))
    if is_relu(student, kept) != is_relu(teacher, goal):
        return None
    value = before_activation(student, kept)
    writers = writers_into(student, value)
    return Site(value, writers, before_activation(teacher, goal).name) if writers else None


def sites_of(student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block], feature: str) -> list[Site]:
    """All places to refit, in order: the cuts, and every stream value behind the first of them."""
    cuts = junctions(student, dropped)
    found = [
        site for entry, exit_ in cuts.items() if (site := junction_site(student, teacher, entry, exit_)) is not None
    ]
    taken = {site.value.name for site in found}
    touched = {*taken, *(block.entry for block in dropped)}
    last = feature_in(student, feature, dropped)
    found += [site for site in later_sites(student, teacher, touched, last) if site.value.name not in taken]
    order = {node.name: place for place, node in enumerate(student.graph.nodes)}
    return _each_writer_once(sorted(found, key=lambda site: order[site.value.name]))


def first_site(student: fx.GraphModule, teacher: fx.GraphModule, dropped: Block, feature: str) -> Site | None:
    """The first place to refit without one block: at its cut or, where nothing can be solved there, behind it."""
    at_cut = junction_site(student, teacher, dropped.entry, dropped.exit)
    return at_cut or next(iter(sites_of(student, teacher, [dropped], feature)), None)


def _each_writer_once(sites: Sequence[Site]) -> list[Site]:
    """Of sites with a writer in common the last one: a sum, and what it becomes when it is rearranged."""
    taken, kept = set[fx.Node](), list[Site]()
    for site in reversed(sites):
        operators = {writer.operator for writer in site.writers}
        if taken.isdisjoint(operators):
            kept.insert(0, site)
        taken |= operators
    return kept


def cuts_without_site(student: fx.GraphModule, teacher: fx.GraphModule, dropped: Sequence[Block]) -> list[str]:
    """The blocks whose cut cannot be refitted right there, the first of each chain."""
    cuts, alive = junctions(student, dropped), {node.name for node in student.graph.nodes}
    fitted = {entry for entry, exit_ in cuts.items() if junction_site(student, teacher, entry, exit_) is not None}
    return [block.name for block in dropped if block.entry in alive - fitted]


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
    """A convolution's output, normalised if at all, that convolutions read as it is and that is not just a term of a sum."""
    ends = isinstance(module_of(traced, node), (nn.BatchNorm2d, nn.Conv2d)) and len(shape_of(node) or ()) == 4
    readers = readers_of(traced, node)
    convolves = any(isinstance(module_of(traced, reader), nn.Conv2d) for reader in readers)
    return ends and convolves and not (len(readers) == 1 and is_addition(readers[0]))
