"""Refitting in sequence: better than the plain drop where it can be, and honest where it is not."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from networks import tiny_mobilenet, tiny_resnet
from practise_deploy.embedded import digits
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.images.reading import read_npz
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, load_weights
from practise_deploy.planning.loss import paired_difference
from practise_deploy.refit import recover as sequence
from practise_deploy.refit.criterion import Errors
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.partial_student import PartialStudent
from practise_deploy.refit.solvers import basic_solvers
from practise_deploy.terms import Preprocessing
from practise_deploy.training.distillation import Distillation
from samples.lessons import MOBILENET, RESNET, LinearStream, Silent, held_out_error, images, opened, recover


def digits_teacher() -> nn.Module:
    network = digits.make_digits_network()
    network.load_state_dict(load_file(digits.WEIGHTS))
    return network.eval()


CASES = [
    (tiny_resnet, RESNET, ("layer1.1",)),
    (tiny_resnet, RESNET, ("layer1.1", "layer2.1", "layer2.2")),
    (tiny_resnet, RESNET, ("layer3.2",)),
    (tiny_mobilenet, MOBILENET, ("features.4",)),
    (tiny_mobilenet, MOBILENET, ("features.3", "features.7")),
]


@pytest.mark.parametrize(("make", "shape", "gone"), CASES, ids=lambda value: str(getattr(value, "__name__", value)))
def test_recovered_student_is_closer_to_the_teacher_on_unseen_images(make, shape, gone):
    teacher, feature, blocks = opened(make(), shape)
    dropped = [blocks[name] for name in gone]
    student = recover(teacher, feature, dropped, images(48, shape), 0, Silent())
    assert student.dropped == gone
    assert student.mse < student.mse_before
    assert student.method.startswith("sequential refit of")
    plain, recovered = held_out_error(teacher, feature, dropped, student, images(64, shape, seed=77))
    assert recovered < 0.9 * plain


def test_digits_network_recovers_from_two_lost_blocks_on_held_out_digits():
    teacher, feature, blocks = opened(digits_teacher(), (1, 1, 28, 28))
    arrays = read_npz(digits.IMAGES, images="fit_images")
    prepared = Preprocessing(
        channels=1, size=(28, 28), resize=28, mean=(0.1307,), std=(0.3081,), interpolation="bilinear", augment="crop"
    )
    fit = FitImages(torch.from_numpy(arrays["fit_images"])[:, None], None, prepared)
    unseen = FitImages(torch.from_numpy(arrays["held_out_images"])[:100, None], None, prepared)
    dropped = [blocks["layer1.1"], blocks["layer1.2"]]
    student = recover(teacher, feature, dropped, fit, 0, Silent())
    plain, recovered = held_out_error(teacher, feature, dropped, student, unseen)
    assert recovered < 0.5 * plain
    assert student.mse < 0.5 * student.mse_before


class Reshaped(LinearStream):
    """It reads its batch size at the very beginning and needs it at the very end."""

    def forward(self, x: Tensor) -> Tensor:
        count = x.size(0)
        x = self.behind(self.block(self.norm(self.writer(self.stem(x)))))
        return self.fc(self.pool(x).view(count, -1))


def test_network_that_asks_for_its_batch_size_is_recovered():
    torch.manual_seed(1)
    shape = (1, 3, 8, 8)
    teacher, feature, blocks = opened(Reshaped(True).eval(), shape)
    student = recover(teacher, feature, [blocks["block"]], images(20, shape), 0, Silent())
    assert student.mse < student.mse_before


class EndsInItsWriter(nn.Module):
    """A depth map: the last thing that it does is a linear layer over positions, which the refit solves."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Tanh()) for _ in range(2))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


@pytest.mark.parametrize("last", [nn.Conv2d(8, 1, 1), nn.Conv2d(8, 5, 3, padding=1, bias=False)])
def test_network_that_ends_in_the_very_layer_that_is_refitted_is_recovered(last: nn.Module):
    torch.manual_seed(1)
    shape = (1, 3, 8, 8)
    teacher, feature, blocks = opened(EndsInItsWriter(last).eval(), shape)
    student = recover(teacher, feature, list(blocks.values())[:1], images(20, shape), 0, Silent())
    assert student.mse < student.mse_before


def test_plain_drop_is_kept_and_named_where_every_refit_is_worse(monkeypatch):
    for way in ("solve", "with_bias", "with_scale"):
        monkeypatch.setattr(NormalEquations, way, lambda self, *given: given[-1].double() * 3 + 1)
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(10, RESNET), 0, Silent())
    assert student.mse == student.mse_before
    assert student.method == "plain drop (every refit was worse on the validation images)"
    plain = drop_blocks(teacher, [blocks["layer1.1"]]).state_dict()
    assert all(torch.equal(torch.from_numpy(student.weights[name]), value) for name, value in plain.items())


def test_every_site_takes_the_way_of_least_error_and_all_are_told(monkeypatch):
    monkeypatch.setattr(sequence, "STRATEGIES", (sequence.BEST_EACH,))
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(20, RESNET), 0, Silent())
    assert len(student.choices) == 8
    before = float("inf")
    for choice in student.choices:
        assert {"plain", *basic_solvers()} <= set(choice.errors)
        assert choice.errors[choice.method] == min(choice.errors.values())
        assert set(choice.images) == set(choice.errors) and choice.images[choice.method] == len(
            images(20, RESNET).split(0)[1]
        )
        assert choice.errors["plain"] <= before + 1e-6  # what was won at a site is not lost at the next
        before = choice.errors[choice.method]
    assert any("variance repaired" in choice.errors or "weighted" in str(choice.errors) for choice in student.choices)


def test_solutions_that_lost_are_not_kept_while_the_best_is_refined(monkeypatch):
    held: list[int] = []
    looks = PartialStudent.evaluations

    def counted(chain: PartialStudent):
        held.append(len(chain.solutions))
        return looks(chain)

    monkeypatch.setattr(PartialStudent, "evaluations", counted)
    monkeypatch.setattr(sequence, "STRATEGIES", (sequence.BEST_EACH,))
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(20, RESNET), 0, Silent())
    refined = [choice for choice in student.choices if any("variance repaired" in name for name in choice.errors)]
    all_but_plain = len(basic_solvers())
    assert refined and sorted(held)[: len(refined)] == [3] * len(refined)  # the best and its two refinements
    assert all(count >= all_but_plain for count in sorted(held)[len(refined) :])


def test_one_ridge_for_all_sites_competes_with_each_in_its_best_way():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(20, RESNET), 0, Silent())
    told = dict(each.rsplit(" ", 1) for each in student.notes[0].rsplit(": ", 1)[1].replace("refit, ", "").split(", "))
    assert set(told) == {"plain drop", sequence.BEST_EACH, "ridge 0.3"}
    assert min(told.values(), key=float) == f"{student.relative:.4g}"
    assert student.method.rsplit(", ", 1)[1] == min(told, key=lambda name: float(told[name]))


def test_error_to_compare_sets_by_is_that_of_the_best_single_ridge():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    dropped, data = [blocks["layer1.1"], blocks["layer2.1"]], images(20, RESNET, few=200)
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=data)
    found = float(sequence.verified_without(calibration, dropped, Silent()).errors.mean())
    student = recover(teacher, feature, dropped, data, 0, Silent())
    told = [
        float(part.split(" ")[-1])
        for part in student.notes[0].replace(", ridge", " ridge").split(": ")[1].split(", ")
        if sequence.BEST_EACH not in part
    ]
    assert found == pytest.approx(min(told), rel=1e-3)


@pytest.mark.parametrize("few", [8, 200])
def test_loss_of_a_set_is_told_on_the_images_that_judge_it_paired_with_their_own_labels(few: int):
    """Labelled with the teacher's answers, whatever the student answers otherwise is lost."""
    network, data = tiny_resnet(), images(40, RESNET, few=few)
    with torch.no_grad():
        network.fc.bias -= network(data.batch(slice(0, 40))).mean(0)  # else it gives all images one class
        labels = network(data.batch(slice(0, 40))).argmax(1)
    teacher, feature, blocks = opened(network, RESNET)
    assert len(labels.unique()) > 3
    dropped = [blocks["layer1.1"], blocks["layer2.1"]]
    lessons = [
        CalibrationProblem(teacher=teacher, feature=feature, images=replace(data, labels=known))
        for known in (labels, None)
    ]
    known, guessed = (sequence.verified_without(calibration, dropped, Silent()) for calibration in lessons)
    assert known.loss is not None and guessed.loss is not None
    assert (known.errors == guessed.errors).all()  # labels tell what was lost, and change nothing else
    assert known.loss.agreement_percent == guessed.loss.agreement_percent
    count = known.loss.images
    otherwise = round(count * (1 - known.loss.agreement_percent.estimate / 100))
    assert otherwise > 0 and count == guessed.loss.images == len(known.errors)
    assert known.loss.points == paired_difference(otherwise, 0, count)
    assert (known.loss.estimated, guessed.loss.estimated) == (False, True)
    assert 0 < guessed.loss.points.estimate < known.loss.points.estimate


def test_loss_is_of_the_form_of_the_student_that_is_less_wrong(monkeypatch):
    """As it is or refitted: the one whose errors are told."""
    goal, right, wrong = torch.eye(3).repeat(4, 1), torch.eye(3).repeat(4, 1), torch.eye(3).roll(1, 0).repeat(4, 1)
    forms = [Errors(torch.full((12,), size), torch.ones(12), goal, own) for size, own in ((0.1, right), (0.2, wrong))]
    for order in (forms, forms[::-1]):
        monkeypatch.setattr(sequence, "judged_without", lambda *given, order=order: tuple(order))
        found = sequence.verified_without(a_lesson(), [], Silent())
        assert found.errors == pytest.approx(0.1)
        assert found.loss is not None and found.loss.agreement_percent.estimate == 100.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_student_that_gives_no_numbers_is_right_nowhere(value: float, monkeypatch):
    goal = torch.eye(3).repeat(4, 1) * 5
    errors = Errors(torch.full((12,), 0.1), torch.ones(12), goal, torch.full((12, 3), value))
    monkeypatch.setattr(sequence, "judged_without", lambda *given: (errors, errors))
    loss = sequence.verified_without(a_lesson(), [], Silent()).loss
    assert loss is not None and loss.agreement_percent.estimate == 0.0
    assert loss.points.low > 20


def test_loss_is_unknown_where_the_task_has_no_answers(monkeypatch):
    own = torch.ones(12, 0)
    errors = Errors(torch.full((12,), 0.1), torch.ones(12), torch.zeros_like(own), own)
    monkeypatch.setattr(sequence, "judged_without", lambda *given: (errors, errors))
    found = sequence.verified_without(a_lesson(), [], Silent())
    assert found.loss is None and found.errors == pytest.approx(0.1)


def a_lesson() -> CalibrationProblem:
    teacher, feature, _ = opened(tiny_resnet(), RESNET)
    return CalibrationProblem(teacher=teacher, feature=feature, images=images(12, RESNET))


def test_error_after_a_site_is_what_the_network_gives_from_end_to_end(monkeypatch):
    """The replay with a changed value equals the network with its weights written back, where the judged student is the one that is given."""
    monkeypatch.setattr("practise_deploy.refit.recover.NEARLY_ALL", 0.8)
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    data = images(20, RESNET, few=8)
    student = recover(teacher, feature, [blocks["layer1.1"]], data, 0, Silent())
    recovered = drop_blocks(teacher, [blocks["layer1.1"]])
    load_weights(recovered, student.weights)
    assert Distillation(recovered, teacher, feature, feature).error(data.split(0)[1], 64) == pytest.approx(
        student.mse, rel=1e-3
    )


def test_fewer_positions_for_want_of_memory_are_told(monkeypatch):
    monkeypatch.setattr("practise_deploy.refit.rows.ROOM_FOR_TARGETS", 1 << 18)
    teacher, feature, blocks = opened(tiny_resnet().double(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(40, RESNET, torch.float64), 0, Silent())
    assert any("for lack of memory" in note and "20000" in note for note in student.notes)


def test_recovering_is_the_same_each_time():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    data = images(20, RESNET)
    first, second = (recover(teacher, feature, [blocks["layer2.1"]], data, 4, Silent()) for _ in range(2))
    assert (first.mse, first.method, first.notes) == (second.mse, second.method, second.notes)
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)


def test_teacher_is_left_as_it_was():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    recover(teacher, feature, [blocks["layer1.1"]], images(10, RESNET), 0, Silent())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


class BehindMaxPooling(nn.Module):
    """Its only block has nothing linear before it, and nothing to refit behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pooled = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2)
        self.block = Unit()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.block(self.pooled(self.stem(x)))).flatten(1))


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.relu, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.relu(self.one(x)))


def test_network_without_any_site_is_dropped_plainly_and_says_so():
    torch.manual_seed(0)
    teacher, feature, blocks = opened(BehindMaxPooling().eval(), RESNET)
    student = recover(teacher, feature, [blocks["block"]], images(20, RESNET, few=200), 0, Silent())
    assert student.choices == () and student.method.startswith("plain drop")
    assert student.mse == student.mse_before > 0
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=images(20, RESNET, few=200))
    found = sequence.verified_without(calibration, [blocks["block"]], Silent())
    assert found.errors.shape == (20,) and found.errors.mean() == pytest.approx(student.relative)
    assert found.loss is not None and found.loss.images == 20


def test_way_that_leaves_the_race_is_told_with_the_images_it_saw():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    student = recover(teacher, feature, [blocks["layer1.1"]], images(320, RESNET), 0, Silent())
    (judged,) = {choice.images[choice.method] for choice in student.choices}
    assert judged == 64
    assert any(min(choice.images.values()) < judged for choice in student.choices)
    for choice in student.choices:
        assert choice.errors[choice.method] == min(choice.errors.values())
