"""The closed-form refit: the equations against a dense solution, patches against unfold, and weights put back."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.model.blocks import find_blocks
from practise_deploy.model.trace import trace
from practise_deploy.model.values import compute, forward, input_of, named, order_of
from practise_deploy.planning.equations import NormalEquations, options
from practise_deploy.planning.refit import folded, put_in, start_of, write_back
from practise_deploy.planning.rows import Sampler, at_positions, patches_of, rows_for, values_for
from practise_deploy.planning.sites import junction_site
from practise_deploy.planning.writers import Site, readers_of, writer_of, writers_into

RESNET, MOBILENET = (1, 3, 16, 16), (1, 3, 32, 32)


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(count: int = 60, width: int = 7, outputs: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Patches with their ones column, targets, and weights to start from."""
    patches = torch.cat([noise(count, width), torch.ones(count, 1, dtype=torch.float64)], 1)
    return patches, noise(count, outputs, seed=2) + 5, noise(width + 1, outputs, seed=3)


def summed(patches: Tensor, targets: Tensor) -> NormalEquations:
    equations = NormalEquations()
    equations.add(patches, targets)
    return equations


def dense(patches: Tensor, targets: Tensor, start: Tensor, ridge: float) -> Tensor:
    """The same minimum by QR: rows that pull to `start`, weighted by the root of the ridge, are stacked below."""
    strength = ridge * (patches[:, :-1] ** 2).sum(0).mean()
    pull = torch.full((patches.shape[1],), float(strength), dtype=torch.float64).sqrt()
    pull[-1] = (1e-9 * len(patches)) ** 0.5
    return torch.linalg.lstsq(
        torch.cat([patches, torch.diag(pull)]), torch.cat([targets, pull[:, None] * start]), driver="gelsd"
    ).solution


# The equations.


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 1.0, 100.0])
def test_solution_is_that_of_dense_least_squares_with_a_pull_to_the_start(ridge):
    patches, targets, start = rows()
    found = summed(patches, targets).solve(ridge, start)
    torch.testing.assert_close(found, dense(patches, targets, start, ridge), rtol=1e-9, atol=1e-9)


def test_solution_without_ridge_is_ordinary_least_squares():
    patches, targets, start = rows()
    wanted = torch.linalg.lstsq(patches, targets).solution
    torch.testing.assert_close(summed(patches, targets).solve(0.0, start), wanted, rtol=1e-6, atol=1e-6)


def test_under_determined_solution_is_dense_least_squares_too():
    patches, targets, start = rows(count=5, width=20)
    found = summed(patches, targets).solve(0.1, start)
    torch.testing.assert_close(found, dense(patches, targets, start, 0.1), rtol=1e-8, atol=1e-8)


def test_huge_ridge_keeps_the_weights_and_still_moves_the_bias():
    patches, targets, start = rows()
    found = summed(patches, targets).solve(1e9, start)
    torch.testing.assert_close(found[:-1], start[:-1], rtol=1e-6, atol=1e-6)
    free = (targets - patches[:, :-1] @ start[:-1]).mean(0)
    torch.testing.assert_close(found[-1], free, rtol=1e-5, atol=1e-5)


def test_start_that_fits_already_is_the_solution_for_every_ridge():
    patches, _, start = rows()
    for ridge in (0.0, 0.1, 10.0):
        found = summed(patches, patches @ start).solve(ridge, start)
        torch.testing.assert_close(found, start, rtol=1e-8, atol=1e-8)


# Fewer unknowns, the same sums. Each is compared with a dense solution of its own problem.


def test_bias_takes_the_mean_error_away():
    patches, targets, start = rows()
    found = summed(patches, targets).with_bias(start)
    torch.testing.assert_close(found[:-1], start[:-1])
    torch.testing.assert_close(
        (patches @ found - targets).mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0
    )


def test_scale_and_bias_are_those_of_a_regression_on_each_output():
    patches, targets, start = rows(count=4000)
    found = patches @ summed(patches, targets).with_scale(start)
    outputs = patches @ start
    hold = 0.01 * outputs.var(0, correction=0).mean()
    for n in range(3):
        centred, goal = outputs[:, n] - outputs[:, n].mean(), targets[:, n] - targets[:, n].mean()
        scale = (float((centred * goal).mean()) + hold) / (float((centred**2).mean()) + hold)
        torch.testing.assert_close(found[:, n], targets[:, n].mean() + scale * centred, rtol=1e-8, atol=1e-8)


def test_adaptor_is_the_best_1x1_map_of_the_outputs_near_the_identity():
    patches, targets, start = rows()
    outputs = torch.cat([patches @ start, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    identity = torch.cat([torch.eye(3), torch.zeros(1, 3)]).double()
    expected = outputs @ dense(outputs, targets, identity, 0.3)
    found = patches @ summed(patches, targets).with_adaptor(0.3, start)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_repaired_solution_varies_as_its_targets_do():
    patches, targets, start = rows(count=400, width=40)
    equations = summed(patches, targets)
    solution = equations.solve(0.3, start * 0)
    repaired = patches @ equations.with_variance(solution)
    wanted = targets.var(0, correction=0) / (patches @ solution).var(0, correction=0)
    scale = wanted.sqrt().clamp(0.5, 2.0)
    torch.testing.assert_close(repaired.var(0, correction=0), scale**2 * (patches @ solution).var(0, correction=0))
    torch.testing.assert_close(repaired.mean(0), targets.mean(0), rtol=1e-8, atol=1e-8)


def test_weights_count_rows_as_often_as_they_say():
    patches, targets, start = rows(count=30)
    counts = torch.arange(30) % 3
    weighted, repeated = NormalEquations(), NormalEquations()
    weighted.add(patches, targets, counts.double())
    repeated.add(patches.repeat_interleave(counts, 0), targets.repeat_interleave(counts, 0))
    assert weighted.rows == repeated.rows
    for name, way in options().items():
        torch.testing.assert_close(way(weighted, start), way(repeated, start), rtol=1e-7, atol=1e-7, msg=name)


def test_every_way_to_solve_fits_no_worse_than_doing_nothing():
    patches, targets, start = rows()
    equations = summed(patches, targets)

    def error(solution: Tensor) -> float:
        return float((patches @ solution - targets).square().sum())

    plain = error(start)
    for name, way in options().items():
        assert error(way(equations, start)) <= plain * (1 + 1e-9), name


def test_rows_added_in_batches_give_what_one_batch_gives():
    patches, targets, start = rows()
    batched = NormalEquations()
    for part in (slice(0, 1), slice(1, 33), slice(33, 60)):
        batched.add(patches[part], targets[part])
    assert batched.rows == 60
    torch.testing.assert_close(
        batched.solve(0.1, start), summed(patches, targets).solve(0.1, start), rtol=1e-12, atol=1e-12
    )


def test_fp32_rows_are_summed_over_batches_in_fp64():
    equations = NormalEquations()
    for _ in range(3):
        equations.add(torch.full((2, 2), 4096.0), torch.ones(2, 1))
    equations.add(torch.full((1, 2), 1e-3), torch.ones(1, 1))
    assert equations.gram is not None and equations.gram.dtype == torch.float64
    assert float(equations.gram[0, 0]) > 6 * 4096.0**2  # in fp32 the last row would be lost


# Patches.


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (3, 5), "padding": (0, 2), "stride": (2, 1)},
    ],
    ids=str,
)
def test_patches_are_those_of_unfold_at_the_drawn_positions(options):
    convolution = nn.Conv2d(3, 4, **options).double()
    x = noise(2, 3, 9, 8)
    height, width = convolution(x).shape[2:]
    drawn = torch.randperm(height * width, generator=torch.Generator().manual_seed(4))[:7]
    found = patches_of(convolution, x, (drawn // width, drawn % width))
    keys = {key: options.get(key, default) for key, default in (("padding", 0), ("stride", 1), ("dilation", 1))}
    wanted = F.unfold(x, convolution.kernel_size, **keys)[:, :, drawn].permute(0, 2, 1).flatten(0, 1)
    assert torch.equal(found, wanted)


def test_patches_times_weights_are_the_convolution():
    convolution = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    x, at = noise(2, 3, 8, 8), (torch.tensor([0, 3, 2]), torch.tensor([1, 3, 0]))
    found = patches_of(convolution, x, at) @ convolution.weight.flatten(1).T + convolution.bias
    wanted = at_positions(convolution(x), at).flatten(0, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_drawn_positions_are_within_the_value_distinct_and_the_same_each_time():
    traced, _ = trace(tiny_resnet(), RESNET)
    value = named(traced, "layer2_0_add") if has(traced, "layer2_0_add") else additions(traced)[3]
    sampler = Sampler(images=1000, seed=5)
    rows_, columns = sampler.positions(value)
    assert len(rows_) == 20
    assert len({(int(r), int(c)) for r, c in zip(rows_, columns, strict=True)}) == 20
    assert int(rows_.max()) < 8 and int(columns.max()) < 8
    again = Sampler(images=1000, seed=5).positions(value)
    assert torch.equal(rows_, again[0]) and torch.equal(columns, again[1])
    assert len(Sampler(images=2, seed=5).positions(value)[0]) == 64  # all there are


def has(traced, name):
    return any(node.name == name for node in traced.graph.nodes)


def additions(traced):
    return [node for node in traced.graph.nodes if "add" in node.name and node.op == "call_function"]


# Weights out and in.


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
    value = named(traced, "norm" if normed else "conv")
    (writer,) = writers_into(traced, value)
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
        torch.cat([patches, ones], 1) @ folded(traced, writer),
        at_positions(wanted, at).flatten(0, 1),
        rtol=1e-11,
        atol=1e-11,
    )


@pytest.mark.parametrize(("bias", "normed"), FORMS)
def test_network_computes_exactly_the_weights_that_were_written_back(bias, normed):
    traced, value, writer = convolved(bias, normed)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).positions(value)  # all 16 positions
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    equations = summed(patches, noise(len(patches), 4))
    solution = noise(28, 4, seed=9)
    write_back(traced, writer, solution, equations, slice(0, 27))
    (found,) = forward(traced, x, [value])
    torch.testing.assert_close(at_positions(found, at).flatten(0, 1), patches @ solution, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(folded(traced, writer), solution, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [True, False])
def test_running_statistics_are_those_of_the_new_outputs(bias):
    traced, value, writer = convolved(bias, True)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).positions(value)
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    write_back(traced, writer, noise(28, 4, seed=9), summed(patches, noise(len(patches), 4)), slice(0, 27))
    (outputs,) = forward(traced, x, [named(traced, "conv")])
    norm = traced.get_submodule("norm")
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(norm.running_var, outputs.var((0, 2, 3), correction=0), rtol=1e-10, atol=1e-10)


def test_network_in_training_mode_computes_the_solved_weights_too():
    traced, value, writer = convolved(False, True)
    x = noise(3, 3, 8, 8)
    at = Sampler(images=3, seed=0).positions(value)
    patches = patches_of(traced.get_submodule("conv"), x, at)
    patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
    solution = noise(28, 4, seed=9)
    write_back(traced, writer, solution, summed(patches, noise(len(patches), 4)), slice(0, 27))
    (found,) = forward(copy.deepcopy(traced).train(), x, [value])
    torch.testing.assert_close(at_positions(found, at).flatten(0, 1), patches @ solution, rtol=1e-9, atol=1e-9)


def test_site_with_two_writers_is_solved_for_both_together():
    traced, _ = trace(tiny_resnet(), RESNET)
    traced = traced.double()
    add = next(node for node in additions(traced) if len(writers_into(traced, node)) == 2)
    site = Site(add, writers_into(traced, add), add.name)
    x = noise(8, 3, 16, 16)
    wanted_value = noise(8, 16, 8, 8, seed=7)
    sampler = Sampler(8, 0)
    at = sampler.positions(add)
    start = input_of(traced).name
    keep = frozenset(node.name for node in values_for(site))
    with torch.no_grad():
        env = compute(traced, order_of(values_for(site), {start}), {start: x}, keep)
        patches, targets = rows_for(traced, site, env, at_positions(wanted_value, at), sampler)
        torch.testing.assert_close(targets, at_positions(wanted_value, at).flatten(0, 1))  # no skip: all is theirs
        starts = [folded(traced, writer) for writer in site.writers]
        begin = torch.cat([*(s[:-1] for s in starts), (starts[0][-1] + starts[1][-1])[None]])
        solution = dense(patches, targets, begin, 0.1)
        equations = summed(patches, targets)
        put_in(traced, site, equations.solve(0.1, start_of(traced, site)), equations)
        (found,) = forward(traced, x, [add])
    torch.testing.assert_close(at_positions(found, at).flatten(0, 1), patches @ solution, rtol=1e-8, atol=1e-8)


def test_target_of_the_rows_is_what_the_skip_leaves():
    traced, _ = trace(tiny_resnet(), RESNET)
    add = additions(traced)[0]
    site = Site(add, writers_into(traced, add), add.name)
    sampler, x = Sampler(4, 0), noise(4, 3, 16, 16).float()
    start = input_of(traced).name
    keep = frozenset(node.name for node in values_for(site))
    env = compute(traced, order_of(values_for(site), {start}), {start: x}, keep)
    wanted = noise(4, 8, 16, 16, seed=3).float()
    at = sampler.positions(add)
    _, targets = rows_for(traced, site, env, at_positions(wanted, at), sampler)
    (skip,) = forward(traced, x, [next(n for n in add.all_input_nodes if n is not site.writers[0].output)])
    torch.testing.assert_close(targets, at_positions(wanted - skip, at).flatten(0, 1), rtol=1e-4, atol=1e-4)


# Writers and sites.


def convolution_names(traced, value):
    return [str(writer.convolution.target) for writer in writers_into(traced, value)]


def test_writer_of_a_basic_block_is_its_second_convolution_with_its_norm():
    traced, _ = trace(tiny_resnet(), RESNET)
    (writer,) = writers_into(traced, additions(traced)[0])
    assert (str(writer.convolution.target), str(writer.norm.target)) == ("layer1.0.conv2", "layer1.0.bn2")
    assert writer.output is writer.norm
    assert writer.source.name == traced.graph.find_nodes(op="call_module", target="layer1.0.relu")[0].name


def test_writers_of_a_stages_first_block_include_the_projection():
    traced, _ = trace(tiny_resnet(), RESNET)
    assert convolution_names(traced, additions(traced)[3]) == ["layer2.0.conv2", "layer2.0.downsample.0"]


def test_writer_of_an_inverted_residual_is_its_projection():
    traced, _ = trace(tiny_mobilenet(), MOBILENET)
    (node,) = traced.graph.find_nodes(op="call_module", target="features.3.conv.3")
    (add,) = [user for user in node.users if user in additions(traced)]
    writer = writer_of(traced, node)
    assert (str(writer.convolution.target), writer.norm) == ("features.3.conv.2", node)
    assert convolution_names(traced, add) == ["features.3.conv.2"]


def test_writer_is_found_behind_dropout_and_identity():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(), nn.Identity()).eval()
    traced, _ = trace(network, (1, 3, 4, 4))
    last = list(traced.graph.nodes)[-2]
    writer = writer_of(traced, last)
    assert str(writer.convolution.target) == "0" and writer.output is last


class Identity(nn.Module):
    """Some networks have one of their own."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("between", [Identity(), nn.Identity(), nn.Dropout2d(), nn.ZeroPad2d((0, 2, 0, 2))], ids=str)
def test_readers_are_seen_through_what_does_nothing(between):
    traced, _ = trace(nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.Conv2d(4, 4, 1)).eval(), (1, 3, 4, 4))
    assert [reader.name for reader in readers_of(traced, named(traced, "_0"))] == ["_2"]


class OwnConvolution(nn.Conv2d):
    """Standardises its weights, so writing to them does not write what it computes."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


class OwnNorm(nn.BatchNorm2d):
    """Does more than normalise."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 4, 3, padding=1, groups=4)],
        [nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)],
        [nn.Conv2d(4, 4, 3, padding="same")],
        [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")],
        [OwnConvolution(4, 4, 1)],
        [nn.Conv2d(4, 4, 1), nn.ReLU()],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)],
        [nn.Conv2d(4, 4, 1), OwnNorm(4)],
        [nn.MaxPool2d(2)],
    ],
    ids=[
        "depthwise", "grouped", "same", "reflect", "own forward", "behind relu", "two norms", "norm without scale",
        "norm without statistics", "own norm", "pooling",
    ],
)  # fmt: skip
def test_what_cannot_be_solved_for_is_no_writer(layers):
    traced, _ = trace(nn.Sequential(*layers).eval(), (1, 4, 6, 6))
    assert writer_of(traced, list(traced.graph.nodes)[-2]) is None


def test_reflect_padding_of_nothing_is_solvable():
    traced, _ = trace(nn.Sequential(nn.Conv2d(4, 4, 1, padding_mode="reflect")).eval(), (1, 4, 6, 6))
    assert writer_of(traced, list(traced.graph.nodes)[-2]) is not None


class Twice(nn.Module):
    """One convolution called in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.relu(self.conv(x)))


def test_convolution_called_in_two_places_is_no_writer():
    traced, _ = trace(Twice().eval(), (1, 4, 6, 6))
    assert writer_of(traced, list(traced.graph.nodes)[-2]) is None


def test_output_that_others_read_before_the_norm_is_no_writer():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + self.relu(y)

    traced, _ = trace(Shared().eval(), (1, 4, 6, 6))
    assert writer_of(traced, named(traced, "norm")) is None


def site_at(network: nn.Module, shape: tuple[int, ...], block: str):
    traced, _ = trace(network, shape)
    found = {b.name: b for b in find_blocks(traced, shape)}[block]
    return traced, found, junction_site(traced, traced, found.entry, found.exit)


def test_site_of_a_cut_is_the_sum_before_it_and_its_target_the_blocks_own_sum():
    traced, _, site = site_at(tiny_resnet(), RESNET, "layer1.1")
    assert (site.value.name, site.target) == (additions(traced)[0].name, additions(traced)[1].name)
    assert [str(w.convolution.target) for w in site.writers] == ["layer1.0.conv2"]


def test_site_of_a_cut_in_a_linear_stream_is_the_entry_itself():
    _, block, site = site_at(tiny_mobilenet(), MOBILENET, "features.3")
    assert (site.value.name, site.target) == (block.entry, block.exit)
    assert [str(w.convolution.target) for w in site.writers] == ["features.2.conv.2"] or len(site.writers) == 1


def test_there_is_no_site_behind_max_pooling():
    _, block, site = site_at(resnet18().eval(), (1, 3, 64, 64), "layer1.0")
    assert block.entry == "maxpool" and site is None


def test_there_is_no_site_where_activations_differ():
    """features.1 of the tiny MobileNet reads the stem's ReLU6 and ends in a plain sum."""
    _, _, site = site_at(tiny_mobilenet(), MOBILENET, "features.1")
    assert site is None
