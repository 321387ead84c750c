"""Whatever is written into a convolution or linear layer and what is behind it computes, in fp64, what it was worked out from."""

from collections.abc import Callable
from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torchvision.ops.misc import Permute

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.operators import module_of
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.refit.affine import patches_of
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.write_back import folded_weights, write_back
from practise_deploy.refit.writers import Writer, writer_of
from practise_deploy.terms import Block
from practise_deploy.training.adaptors import absorb_adaptors, insert_adaptors

WIDTH, IMAGES, SIDE = 4, 3, 7
NETWORKS = {tiny_resnet: (2, 3, 16, 16), tiny_mobilenet: (2, 3, 32, 32)}
seeds = st.integers(0, 10**6)
shapes = st.fixed_dictionaries(
    {
        "kernel_size": st.sampled_from([1, 3, (3, 1)]),
        "stride": st.integers(1, 2),
        "padding": st.integers(0, 2),
        "bias": st.booleans(),
    }
)
writers = st.sampled_from(
    [
        "", "normed", "scaled", "normed scaled", "permuted", "permuted scaled",
        "linear", "linear scaled", "linear permuted", "linear permuted scaled", "linear permuted normed",
        "linear permuted normed scaled",
    ]
)  # fmt: skip


def drawing(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


class Scaled(nn.Module):
    """Each channel times a learned number. axis: of the channels."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones([WIDTH if at == axis else 1 for at in range(4)]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors


def random_writer(shape: dict, behind: str, seed: int) -> tuple[fx.GraphModule, Writer, Tensor]:
    """A convolution or a linear layer with what stands behind it, of any numbers, and images."""
    draw, linear = drawing(seed), "linear" in behind
    operator = nn.Linear(SIDE, WIDTH, shape["bias"]) if linear else nn.Conv2d(3, WIDTH, **shape)
    layers: list[nn.Module] = [operator]
    if "permuted" in behind:
        layers.append(Permute([0, 3, 1, 2] if linear else [0, 2, 3, 1]))
    axis = 3 if linear != ("permuted" in behind) else 1
    layers += [nn.BatchNorm2d(WIDTH)] if "normed" in behind else []
    layers += [Scaled(axis)] if "scaled" in behind else []
    network = nn.Sequential(*layers, nn.ReLU()).double().eval()
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(draw(*value.shape))
        for norm in (module for module in network if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean.copy_(draw(WIDTH))
            norm.running_var.copy_(draw(WIDTH).exp())
    traced, _ = trace(network, (IMAGES, 3, SIDE, SIDE))
    writer = writer_of(AnnotatedGraph(traced), list(traced.graph.nodes)[-2].all_input_nodes[0])
    assert writer is not None and writer.axis == axis
    assert (writer.norm is not None, writer.scale is not None) == ("normed" in behind, "scaled" in behind)
    return traced, writer, draw(IMAGES, 3, SIDE, SIDE)


def value_of(traced: fx.GraphModule, writer: Writer, x: Tensor) -> Tensor:
    """What a writer gives. Shapes: [rows, channels]."""
    with torch.no_grad():
        (found,) = forward(traced, x, [writer.output])
    return found.movedim(writer.axis, -1).flatten(0, 2)


def all_rows(traced: fx.GraphModule, writer: Writer, x: Tensor) -> Tensor:
    """The writer's patches at every position in the order of `value_of`, with the ones column."""
    sides = [side for at, side in enumerate(writer.output.meta["shape"]) if at not in (0, writer.axis)]
    places = torch.unravel_index(torch.arange(sides[0] * sides[1]), sides)
    found = patches_of(module_of(traced, writer.operator), x, places)
    return torch.cat([found, found.new_ones(len(found), 1)], 1)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert float((found - wanted).norm()) <= 1e-10 * float(wanted.norm())


@given(shape=shapes, behind=writers, seed=seeds)
@settings(max_examples=80, deadline=None)
def test_folded_weights_give_the_writers_output(shape, behind, seed):
    traced, writer, x = random_writer(shape, behind, seed)
    assert_close(all_rows(traced, writer, x) @ folded_weights(writer), value_of(traced, writer, x))


@given(shape=shapes, behind=writers, seed=seeds)
@settings(max_examples=80, deadline=None)
def test_weights_that_were_written_back_are_what_is_computed(shape, behind, seed):
    traced, writer, x = random_writer(shape, behind, seed)
    rows = all_rows(traced, writer, x)
    equations = NormalEquations()
    equations.add(rows, rows[:, :WIDTH])
    solution = drawing(seed + 1)(rows.shape[1], WIDTH)
    with torch.no_grad():
        write_back(writer, solution, equations, slice(0, len(solution) - 1))
    assert_close(value_of(traced, writer, x), rows @ solution)
    assert_close(folded_weights(writer), solution)


@cache
def opened(make: Callable[[], nn.Module]) -> tuple[fx.GraphModule, tuple[Block, ...]]:
    teacher, _ = trace(make().double(), NETWORKS[make])
    return teacher, droppable(find_blocks(teacher, NETWORKS[make]))


@given(make=st.sampled_from(list(NETWORKS)), which=seeds, seed=seeds)
@settings(max_examples=20, deadline=None)
def test_network_that_absorbed_adaptors_computes_what_the_one_with_them_did(make, which, seed):
    teacher, blocks = opened(make)
    block = blocks[which % len(blocks)]
    student, draw = drop_blocks(teacher, [block]), drawing(seed)
    adaptors = insert_adaptors(student, block.entry)
    x = draw(*NETWORKS[make])
    with torch.no_grad():
        for adaptor in adaptors:
            weight = module_of(student, node_by_name(student, adaptor.node)).weight
            weight.copy_(draw(*weight.shape) / len(weight) ** 0.5)
        wanted = student(x)
        absorb_adaptors(student, adaptors)
        assert_close(student(x), wanted)
    assert set(student.state_dict()) == set(drop_blocks(teacher, [block]).state_dict())
