"""Streams that linear layers write to are solved: exactly where that can be, on the students' own values, at their positions."""

import pytest
import torch
from torch import Tensor, nn

from networks import tiny_convnext, tiny_swin, tiny_transformer
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.activations import forward, node_by_name
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.criterion import joined
from practise_deploy.refit.partial_student import PartialStudent
from practise_deploy.refit.points import point_at_cut
from practise_deploy.refit.rows import Sampler, channels_of
from practise_deploy.refit.solvers import SOLVERS, Solver, SolverKind
from samples.lessons import Silent, held_out_error, images, opened, recover, refitted
from samples.solving import additions

TRANSFORMER, CONVNEXT = (1, 3, 16, 16), (1, 3, 32, 32)


class LinearStep(nn.Module):
    """x + W x on vectors along the last axis: a linear map of the stream."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc(x)


class Written(nn.Module):
    """A stream that a linear layer writes, perhaps scaled and moved, and a block that its weights can take over."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.writer = nn.Linear(5, 6)
        self.gamma = nn.Parameter(torch.tensor([1.0, -0.5, 1e-7, 0.0, 3.0, 1.0])) if scaled else None
        self.block, self.behind, self.head = LinearStep(6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.writer(self.stem(x).relu().permute(0, 2, 3, 1))
        x = self.block(x if self.gamma is None else x * self.gamma)
        return self.head(self.behind(x).relu().mean((1, 2)))


@pytest.mark.parametrize("scaled", [False, True])
def test_linear_writer_absorbs_a_linear_block_exactly(scaled):
    """With a scale too, even where a channel's factor was next to nothing or nothing at all."""
    torch.manual_seed(1)
    shape = (4, 3, 8, 8)
    teacher, feature, blocks = opened(Written(scaled).double().eval(), shape)
    block = blocks["block"]
    fresh = torch.randn(5, *shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(99))
    with torch.no_grad():
        before = float((drop_blocks(teacher, [block])(fresh) - teacher(fresh)).abs().max())
        student, points = refitted(teacher, feature, [block], images(12, shape, torch.float64), 1)
        after = float((student(fresh) - teacher(fresh)).abs().max())
    assert [str(writer.operator.target) for writer in points[0].writers] == ["writer"]
    assert before > 1e-2
    assert after < 1e-9  # on images that it never saw
    if scaled:
        sizes = [
            torch.cat([layer.weight, layer.bias[:, None]], 1).norm(dim=1)
            for layer in (network.get_submodule("writer") for network in (student, teacher))
        ]
        torch.testing.assert_close(*sizes)
        assert (student.get_parameter("gamma") < 0).tolist() == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("make", "shape", "name"),
    [
        (tiny_transformer, TRANSFORMER, "blocks.1.add_3"),
        (tiny_convnext, CONVNEXT, "features.1.1"),
        (tiny_convnext, CONVNEXT, "features.3.1"),
        (tiny_swin, TRANSFORMER, "blocks.0.add_1"),
        (tiny_swin, TRANSFORMER, "blocks.1.add_2"),
    ],
)
def test_recovered_network_of_linear_writers_errs_less_on_images_that_it_did_not_see(make, shape, name):
    teacher, feature, blocks = opened(make(), shape)
    gone = [blocks[name]]
    student = recover(teacher, feature, gone, images(60, shape), 0, Silent())
    assert any(choice.method != "plain" for choice in student.choices)
    plain, recovered = held_out_error(teacher, feature, gone, student, images(64, shape, seed=8))
    assert recovered < 0.95 * plain


class Step(nn.Module):
    """A residual unit whose factors are made before its layers are called."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2, self.gamma = nn.Linear(width, 8), nn.Linear(8, width), nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        factors = self.gamma.view(1, 1, -1)
        return x + factors * self.fc2(self.fc1(x).relu())


class Steps(nn.Module):
    """Four of them on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.steps, self.head = nn.Conv2d(3, 6, 4, 4), nn.Sequential(*map(Step, [6] * 4)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.steps(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def test_factors_that_a_refit_changed_are_looked_at_anew_behind_it():
    torch.manual_seed(2)
    teacher, feature, blocks = opened(Steps().double().eval(), TRANSFORMER)
    gone = [blocks["steps.1"]]
    learn, judge = images(20, TRANSFORMER, torch.float64), images(10, TRANSFORMER, torch.float64, seed=9)
    with torch.no_grad():
        chain = PartialStudent(
            CalibrationProblem(teacher=teacher, feature=feature, images=learn), gone, learn, judge
        ).branched()
        before = chain.student.get_parameter("steps.0.gamma").clone()
        for _ in chain.points:
            way = Solver(SolverKind.RIDGE, lambda sums, start: sums.solve(0.01, start))
            chain.fit([way])
            chain.solve({"refit": way})
            chain.take("refit")
        told = joined(chain.errors()).features
        values = [forward(each, judge.pixels, [node_by_name(each, feature)])[0] for each in (teacher, chain.student)]
    assert len(chain.points) == 3 and not torch.equal(before, chain.student.get_parameter("steps.0.gamma"))
    torch.testing.assert_close(told.double(), (values[0] - values[1]).square().flatten(1).mean(1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "shape", "name"),
    [
        (tiny_transformer, TRANSFORMER, "blocks.0.add_2"),
        (tiny_convnext, CONVNEXT, "features.1.1"),
        (tiny_swin, TRANSFORMER, "blocks.0.add_1"),
        (tiny_swin, TRANSFORMER, "blocks.1.add_2"),
    ],
)
def test_what_a_solution_is_expected_to_give_is_what_the_student_gives_with_it(make, shape, name):
    teacher, feature, blocks = opened(make().double(), shape)
    learn, judge = images(12, shape, torch.float64), images(5, shape, torch.float64, seed=9)
    with torch.no_grad():
        chain = PartialStudent(
            CalibrationProblem(teacher=teacher, feature=feature, images=learn), [blocks[name]], learn, judge
        )
        for number, _ in enumerate(chain.points):
            way = list(SOLVERS)[number % len(SOLVERS)]
            chain.fit([SOLVERS[way]])
            chain.solve({way: SOLVERS[way]})
            expected = joined([look(way) for look in chain.evaluations()]).features
            chain.take(way)
            torch.testing.assert_close(joined(chain.errors()).features, expected, rtol=1e-4, atol=1e-7)


def test_positions_of_tokens_and_of_maps_are_drawn_in_the_layout_of_each():
    for make, shape, channels in ((tiny_transformer, TRANSFORMER, 12), (tiny_convnext, CONVNEXT, 8)):
        traced, _ = trace(make(), shape)
        point = point_at_cut(
            AnnotatedGraph(traced), AnnotatedGraph(traced), *(node.name for node in additions(traced)[1:3])
        )
        value = torch.randn(4, *point.value.meta["shape"][1:])
        sampler = Sampler(4, seed=0, rows=24)
        found = sampler.vectors(point, value)
        assert channels_of(point) == channels and found.shape == (4, 6, channels)
        everywhere = value.movedim(point.axis, -1).flatten(1, -2)
        assert all((everywhere == vector[:, None]).all(-1).any(1).all() for vector in found.unbind(1))


def test_class_token_is_always_among_the_positions():
    teacher, _, blocks = opened(tiny_transformer(), TRANSFORMER)
    point = point_at_cut(
        AnnotatedGraph(teacher), AnnotatedGraph(teacher), blocks["blocks.0.add_2"].entry, blocks["blocks.0.add_2"].exit
    )
    for seed in range(5):
        (places,) = Sampler(100, seed, rows=300).places(point)
        assert len(set(places.tolist())) == 3 and places[0] == 0
