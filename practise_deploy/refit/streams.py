"""A change of basis of a whole residual stream, z -> A z + b, which costs nothing: it goes into the weights around it.

Behind a stream value z with later writers w and readers R, with A invertible:

    R(A z + b + w) = R A (z + A^-1 b + A^-1 w)

so A goes into the readers, A^-1 into the later writers, and A^-1 b into the bias of the writer of z: exact for any
kernel, stride and zero padding, since the map that the readers take in has no bias. Where ReLUs are in between, it
is for a diagonal A > 0, as relu(A z) = A relu(z). Source: the map is this project's own; the ReLU scale and the
linear map are standard re-parameterisations.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from practise_deploy.network.operators import is_addition, is_relu, is_relu6, module_of, shape_of
from practise_deploy.refit.affine import convolution_at, is_plain
from practise_deploy.refit.pointwise import Pointwise, multiply_before, put_behind, take_out
from practise_deploy.refit.transparent import passes_on
from practise_deploy.refit.write_back import add_bias, map_output
from practise_deploy.refit.writers import Site, Writer, writers_into


@dataclass(frozen=True, slots=True)
class Stream:
    """What a value goes on into: the values that carry it, the convolutions that read it, the writers that add to it.

    diagonal: whether there are ReLUs in it, so that only a positive diagonal map passes.
    """

    values: frozenset[fx.Node]
    readers: tuple[fx.Node, ...]
    writers: tuple[Writer, ...]
    diagonal: bool


def stream_of(traced: fx.GraphModule, site: Site, feature: str) -> Stream | None:
    """The stream behind a site's value; None where a map of it cannot be absorbed, or would change the feature map."""
    is_map = len(shape_of(site.value) or ()) == 4 and site.axis == 1
    found = _stream_behind(traced, site.value) if is_map else None
    return None if found is None or feature in {node.name for node in found.values} else found


def insert(traced: fx.GraphModule, site: Site, matrix: Tensor, bias: Tensor) -> None:
    """Map the stream behind a site's value by a 1x1 convolution; whatever is computed of it sees A z + b.

    So later sites are solved in the teacher's basis. matrix: positive and diagonal where the stream demands it.
    Shapes: matrix [c, c], bias [c].
    """
    weight = next(traced.parameters())
    add_bias(traced, site.writers[0], torch.linalg.solve(matrix, bias))
    put_behind(traced, f"stream_map_{site.value.name}", Pointwise(matrix.to(weight)), site.value)


def absorb(traced: fx.GraphModule) -> None:
    """Multiply every inserted map into what is around it (in fp64) and take it out of the graph.

    In order: a further map of the same stream is one of the readers of the one before.
    """
    for node, module in _maps(traced):
        stream, matrix = _stream_behind(traced, node), module.matrix
        assert stream is not None
        for reader in stream.readers:
            multiply_before(convolution_at(traced, reader), matrix)
        for writer in stream.writers:
            map_output(traced, writer, torch.linalg.inv(matrix))
        take_out(traced, node)


def accumulated(traced: fx.GraphModule, value: fx.Node, matrix: Tensor) -> Tensor:
    """A map of the stream behind a value times all maps that this stream had before. Shapes: [c, c]."""
    for node, module in reversed(_maps(traced)):
        stream = _stream_behind(traced, node)
        if stream is not None and value in stream.values:
            return accumulated(traced, node.all_input_nodes[0], matrix @ module.matrix)
    return matrix


def values_behind(traced: fx.GraphModule, names: Collection[str]) -> frozenset[str]:
    """The values with these names and all that carry the streams behind them: where those were mapped and the maps
    absorbed, these values are in another basis than the teacher's."""
    streams = [_stream_behind(traced, node) for node in traced.graph.nodes if node.name in names]
    return frozenset(node.name for stream in streams if stream is not None for node in stream.values)


def _stream_behind(traced: fx.GraphModule, value: fx.Node) -> Stream | None:
    carried, readers, writers = {value}, [], []
    diagonal = False
    for node in traced.graph.nodes:
        if carried.isdisjoint(node.all_input_nodes):
            continue
        if is_plain(traced, node):
            readers.append(node)
            continue
        activated = is_relu(traced, node) and not is_relu6(traced, node)
        added = _added(traced, node, carried)
        if added is None and not activated and not passes_on(traced, node):
            return None
        carried.add(node)
        writers += added or []
        diagonal |= activated
    return Stream(frozenset(carried), tuple(readers), tuple(writers), diagonal)


def _added(traced: fx.GraphModule, node: fx.Node, carried: set[fx.Node]) -> list[Writer] | None:
    """The writers whose outputs an addition adds to the stream.

    None where it is none, or adds anything else, or where what it adds them to is but a writer's output: then the
    sum is the place to map.
    """
    if not is_addition(node):
        return None
    writers = writers_into(traced, node)
    others = [term for term in node.all_input_nodes if term not in carried]
    all_known = [writer.output for writer in writers if writer.axis == 1] == others
    return list(writers) if all_known else None


def _maps(traced: fx.GraphModule) -> list[tuple[fx.Node, Pointwise]]:
    """Every inserted map, in order."""
    found = [(node, module_of(traced, node)) for node in traced.graph.nodes]
    return [(node, module) for node, module in found if isinstance(module, Pointwise)]
