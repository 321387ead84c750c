"""Weights taken out of a network and put back: what is computed is exactly what was solved."""

import copy

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_resnet
from practise_deploy.network.graph.activations import compute, forward, input_of, node_by_name, nodes_to_compute
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.affine import patches_of, vectors_at
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.rows import Sampler, rows_for, values_for
from practise_deploy.refit.write_back import folded_weights, put_in, start_of, write_back
from practise_deploy.refit.writers import ReconstructionPoint, writers_into
from samples.solving import additions, dense, noise, summed

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


class Convolved(nn.Module):
    """One convolution, perhaps a BatchNorm with statistics of its own, and a head."""

    def __init__(self, bias: bool, norm: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
        self.norm = norm
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.relu(x if self.norm is None else self.norm(x))


def seasoned_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([0.3, -1.0, 2.0, 0.0]))
        norm.running_var.copy_(torch.tensor([0.5, 2.0, 0.1, 1.0]))
        norm.weight.copy_(torch.tensor([1.5, -0.5, 0.2, 1.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, -0.4, 3.0]))
    return norm


def convolved(bias: bool, normed: bool):
    torch.manual_seed(0)
    network = Convolved(bias, seasoned_norm() if normed else None).double().eval()
    traced, _ = trace(network, (2, 3, 8, 8))
    value = node_by_name(traced, "norm" if normed else "conv")
    (writer,) = writers_into(AnnotatedGraph(traced), value)
    return traced, value, writer


FORMS = [(True, True), (False, True), (True, False), (False, False)]


@pytest.mark.parametrize(("bias", "normed"), FORMS)
def test_folded_weights_compute_the_value(bias, normed):
    traced, value, writer = convolved(bias, normed)
    x, at = noise(2, 3, 8, 8), (torch.tensor([0, 3, 1]), torch.tensor([2, 0, 1]))
    patches = patches_of(traced.get_submodule("conv"), x, at)
    ones = torch.ones(len(patches), 1, dtype=torch.float64)
    (wanted,) = forward(traced, x, [value])
    torch.testing.assert_close(
        torch.cat([patches, ones], 1) @ folded_weights(writer),
        vectors_at(wanted, 1, at).flatten(0, 1),
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize(("bias", "normed"), FORMS)
def test_network_computes_exactly_the_weights_that_were_written_back(bias, normed):
    traced, value, writer = convolved(bias, normed)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).places(ReconstructionPoint(value, (writer,), ""))  # all 16 positions
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    equations = summed(patches, noise(len(patches), 4))
    solution = noise(28, 4, seed=9)
    write_back(writer, solution, equations, slice(0, 27))
    (found,) = forward(traced, x, [value])
    torch.testing.assert_close(vectors_at(found, 1, at).flatten(0, 1), patches @ solution, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(folded_weights(writer), solution, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_running_statistics_are_those_of_the_new_outputs(bias):
    traced, value, writer = convolved(bias, True)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).places(ReconstructionPoint(value, (writer,), ""))
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    write_back(writer, noise(28, 4, seed=9), summed(patches, noise(len(patches), 4)), slice(0, 27))
    (outputs,) = forward(traced, x, [node_by_name(traced, "conv")])
    norm = traced.get_submodule("norm")
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3), correction=0), rtol=1e-10, atol=1e-10)


def test_network_in_training_mode_computes_the_solved_weights_too():
    traced, value, writer = convolved(False, True)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).places(ReconstructionPoint(value, (writer,), ""))
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    solution = noise(28, 4, seed=9)
    write_back(writer, solution, summed(patches, noise(len(patches), 4)), slice(0, 27))
    (found,) = forward(copy.deepcopy(traced).train(), x, [value])
    torch.testing.assert_close(vectors_at(found, 1, at).flatten(0, 1), patches @ solution, rtol=1e-9, atol=1e-9)


def test_site_with_two_writers_is_solved_for_both_together():
    traced, _ = trace(tiny_resnet(), RESNET)
    traced = traced.double()
    add = next(node for node in additions(traced) if len(writers_into(AnnotatedGraph(traced), node)) == 2)
    point = ReconstructionPoint(add, writers_into(AnnotatedGraph(traced), add), add.name)
    x = noise(8, 3, 16, 16)
    wanted_value = noise(8, 16, 8, 8, seed=7)
    sampler = Sampler(8, 0)
    at = sampler.places(point)
    start = input_of(traced).name
    keep = frozenset(node.name for node in values_for(point))
    with torch.no_grad():
        env = compute(traced, nodes_to_compute(values_for(point), {start}), {start: x}, keep)
        patches, targets = rows_for(point, env, vectors_at(wanted_value, 1, at), sampler)
        torch.testing.assert_close(targets, vectors_at(wanted_value, 1, at).flatten(0, 1))  # no skip: all is theirs
        starts = [folded_weights(writer) for writer in point.writers]
        begin = torch.cat([*(s[:-1] for s in starts), (starts[0][-1] + starts[1][-1])[None]])
        solution = dense(patches, targets, begin, 0.1)
        equations = summed(patches, targets)
        put_in(point, equations.solve(0.1, start_of(point)), equations)
        (found,) = forward(traced, x, [add])
    torch.testing.assert_close(vectors_at(found, 1, at).flatten(0, 1), patches @ solution, rtol=1e-8, atol=1e-8)


def test_target_of_the_rows_is_what_the_skip_leaves():
    traced, _ = trace(tiny_resnet(), RESNET)
    add = additions(traced)[0]
    point = ReconstructionPoint(add, writers_into(AnnotatedGraph(traced), add), add.name)
    sampler, x = Sampler(4, 0), noise(4, 3, 16, 16).float()
    start = input_of(traced).name
    keep = frozenset(node.name for node in values_for(point))
    env = compute(traced, nodes_to_compute(values_for(point), {start}), {start: x}, keep)
    wanted = noise(4, 8, 16, 16, seed=3).float()
    at = sampler.places(point)
    _, targets = rows_for(point, env, vectors_at(wanted, 1, at), sampler)
    (skip,) = forward(traced, x, [next(n for n in add.all_input_nodes if n is not point.writers[0].output)])
    torch.testing.assert_close(targets, vectors_at(wanted - skip, 1, at).flatten(0, 1), rtol=1e-4, atol=1e-4)
