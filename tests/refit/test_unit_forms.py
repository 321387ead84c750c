"""Writers are solved for in whatever form their units are written, through the constants and learned factors behind them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks, splices
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import first_point, points_of
from practise_deploy.refit.replay import changed
from practise_deploy.refit.rows import values_for
from practise_deploy.refit.write_back import put_in, start_of
from practise_deploy.refit.writers import writers_into
from samples.lessons import images, in_double, refitted
from samples.residuals import FORMS, SHAPE, droppable_of, units

torch.set_num_threads(1)  # networks this small run slower on two
SOLVED = [form for form in FORMS if form not in ("difference behind a rectifier", "rectified")]
"""Those whose stream a convolution writes to."""


def values_at(network, x: Tensor, names: list[str]) -> list[Tensor]:
    with torch.no_grad():
        return list(forward(network, x, [node_by_name(network, name) for name in names]))


@pytest.mark.parametrize("form", [form for form in SOLVED if form != "two: C2f"])
def test_what_a_refit_leaves_over_at_the_cut_is_orthogonal_to_what_the_writers_read(form: str) -> None:
    teacher, feature, blocks = in_double(units(form, form), SHAPE)
    block, data = droppable_of(list(blocks.values()))[-1], images(20, SHAPE, torch.float64)
    student, points = refitted(teacher, feature, [block], data, count=1)
    assert points[0].value.name == block.entry and points[0].target == block.exit
    x = data.batch(slice(0, 20))
    (goal,) = values_at(teacher, x, [block.exit])
    before, after = (values_at(each, x, [block.entry])[0] for each in (drop_blocks(teacher, [block]), student))
    assert (goal - after).square().sum() < 0.999 * (goal - before).square().sum()
    for writer in points[0].writers:
        (read,) = values_at(student, x, [writer.source.name])
        ones = torch.cat([read, torch.ones_like(read[:, :1])], 1)
        products = torch.einsum(
            "nchw,nkhw->ck", goal - after, ones if writer.layer.kernel_size == (1, 1) else ones[:, -1:]
        )
        assert products.abs().max() < 1e-6 * (goal.norm() * ones.norm())


@pytest.mark.parametrize("form", SOLVED)
def test_value_that_a_change_of_weights_gives_is_the_one_that_is_computed_with_it(form: str) -> None:
    teacher, feature, blocks = in_double(units(form, form), SHAPE)
    block = droppable_of(list(blocks.values()))[-1]
    student, x = drop_blocks(teacher, [block]), images(4, SHAPE, torch.float64).batch(slice(0, 4))
    point = first_point(student, teacher, block, feature)
    assert point is not None
    names = [node.name for node in values_for(point)]
    env = dict(zip(names, values_at(student, x, names), strict=True))
    start = start_of(point)
    change = torch.randn(start.shape, generator=torch.Generator().manual_seed(5), dtype=start.dtype)
    put_in(point, start + change, None)
    torch.testing.assert_close(
        values_at(student, x, [point.value.name])[0], changed(point, change, env, torch.float64), rtol=1e-6, atol=1e-8
    )


IN_TURN = ("two: one after another", "two: C2f", "two: C3")


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("two: ") and form not in IN_TURN])
def test_input_that_another_branch_reads_is_not_refitted_without_the_first(form: str) -> None:
    teacher, feature, blocks = in_double(units(form, form), SHAPE)
    first, second = droppable_of(list(blocks.values()))[-2:]
    student = drop_blocks(teacher, [first])
    points = points_of(student, teacher, [first], feature)
    assert points[0].target == second.exit
    assert splices(student, [first]) == {} or form == "two: scaled skip"  # there the scaled input is the sum's alone
    both = drop_blocks(teacher, [first, second])
    assert points_of(both, teacher, [first, second], feature)[0].target == second.exit


@pytest.mark.parametrize("form", ["two: C2f", "two: C3"])
def test_input_that_a_concatenation_reads_stays_what_it_was(form: str) -> None:
    teacher, feature, blocks = in_double(units(form, form), SHAPE)
    first, second = droppable_of(list(blocks.values()))[-2:]
    for dropped in ([first], [first, second]):
        student = drop_blocks(teacher, dropped)
        points = points_of(student, teacher, dropped, feature)
        assert points and first.entry not in splices(student, dropped)
        assert first.entry not in {point.value.name for point in points}
    between = drop_blocks(teacher, [second])  # what the second reads is read by nothing else in C3
    assert (second.entry in splices(between, [second])) == (form == "two: C3")


def writers_at_the_end(network: nn.Module) -> list[str]:
    """Those into the last values of its units, by their outputs and the constants behind them."""
    teacher, _, blocks = in_double(network, SHAPE)
    graph = AnnotatedGraph(teacher)
    exits = [writers_into(graph, node_by_name(teacher, block.exit)) for block in blocks.values()]
    return [f"{writer.layer.weight.shape[0]} x {float(writer.constant):g}" for writers in exits for writer in writers]


def test_constants_on_the_way_are_multiplied() -> None:
    assert writers_at_the_end(units(lambda u, x: x - 0.5 * (u.f(x) / u.constant))) == ["6 x -1"]
    assert writers_at_the_end(units(lambda u, x: x - (-u.f(x)) * 3)) == ["6 x 3"]


def test_branch_that_is_multiplied_by_nothing_has_no_writer() -> None:
    assert writers_at_the_end(units(lambda u, x: x + 0 * u.f(x))) == []


def test_norm_is_solved_through_before_a_constant_and_not_behind_one() -> None:
    def normed(meeting) -> list[str]:
        network = units(meeting)
        network.blocks[0].add_module("batch_norm", nn.BatchNorm2d(6).eval())
        return writers_at_the_end(network)

    assert normed(lambda u, x: x + u.batch_norm(u.f(x)) * 0.5) == ["6 x 0.5"]
    assert normed(lambda u, x: x + u.batch_norm(u.f(x) * 0.5)) == []


@pytest.mark.parametrize("gain", [0.0, -0.7])
def test_gain_of_any_size_and_sign_takes_up_how_much_longer_the_weights_are(gain: float) -> None:
    network = units("learned gain", "learned gain")
    network.blocks[0].gain.data.fill_(gain)
    teacher, feature, blocks = in_double(network, SHAPE)
    block, data = droppable_of(list(blocks.values()))[-1], images(20, SHAPE, torch.float64)
    _, points = refitted(teacher, feature, [block], data, count=1)
    (writer,) = points[0].writers
    assert writer.factors is not None and writer.factors.sign() == (-1 if gain < 0 else 1)
    old = teacher.get_submodule(str(writer.operator.target))
    lengths = [torch.cat([m.weight.flatten(), m.bias.flatten()]).norm() for m in (writer.layer, old)]
    torch.testing.assert_close(*lengths)
