"""The stage around the descent: what may change, what is judged, and which weights are kept."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.activations import find_feature
from practise_deploy.network.graph.surgery import weights_of
from practise_deploy.network.tracing.trace import trace
from practise_deploy.terms import Student
from practise_deploy.training import finetune as finetuning
from practise_deploy.training.batches import augmented_views
from practise_deploy.training.distillation import Distillation, trained_parameters
from practise_deploy.training.mimic import mimic
from practise_deploy.training.schedule import Schedule
from samples.descents import SHORT, original, same, small_pair
from samples.lessons import Silent, photos


def start_of() -> Student:
    teacher, _, feature, block = original()
    return finetuning.drop_only(CalibrationProblem(teacher=teacher, feature=feature, images=photos(20)), [block])


def tuned(schedule: Schedule):
    teacher, student, feature, _ = original()
    start = start_of()
    network = copy.deepcopy(student)
    pair = Distillation(network, copy.deepcopy(teacher), feature, feature)
    result = finetuning.finetune(pair, start, photos(20), schedule, Silent())
    return start, network, result


def test_parameters_that_are_read_by_themselves_learn_too():
    class Scaled(nn.Module):
        """A layer scale, as ConvNeXt has it, and one behind the features."""

        def __init__(self) -> None:
            super().__init__()
            self.scale, self.behind = nn.Parameter(torch.ones(1, 3, 1, 1)), nn.Parameter(torch.ones(3))
            self.conv, self.pool, self.fc = nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.pool(self.conv(x) * self.scale).flatten(1) * self.behind)

    traced, _ = trace(Scaled().eval(), (1, 3, 8, 8))
    reached = trained_parameters(traced, find_feature(traced).name, ())
    by_name = {name for name, each in traced.named_parameters() if any(each is other for other in reached)}
    assert by_name == {"scale", "conv.weight", "conv.bias"}


def test_classifier_is_not_touched_and_everything_else_may_be():
    _, network, result = tuned(SHORT)
    before = original()[1].state_dict()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not {name for name in changed if name.startswith("fc")}
    assert {name for name, _ in network.named_parameters() if not name.startswith("fc")} == changed
    assert same(result.weights, weights_of(network))


def test_plain_drop_is_where_the_papers_finetuning_starts():
    start, _, result = tuned(SHORT)
    assert start.mse == start.mse_before and start.judged_on == "4 validation images"
    assert same(start.weights, weights_of(original()[1]))
    assert (start.method, start.steps, start.dropped) == ("plain drop (the paper's start)", 0, ("layer2.1",))
    assert (result.dropped, result.steps) == (("layer2.1",), 6)


@pytest.mark.parametrize("rate", [500.0, 1e-4])
def test_finetuning_that_ends_worse_than_it_began_keeps_the_start_and_says_so(rate):
    start, _, result = tuned(Schedule(steps=5, batch_size=8, learning_rate=rate, keep_start=True))
    worse = rate > 1
    assert same(result.weights, start.weights) == worse
    assert any("the weights before it are kept" in note for note in result.notes) == worse
    assert result.mse == result.mse_before if worse else result.mse < result.mse_before


def test_error_told_is_that_of_the_weights_kept():
    schedule = Schedule(steps=5, batch_size=8, learning_rate=0.1)
    teacher, _, feature, _ = original()
    _, network, result = tuned(schedule)
    judge = augmented_views(photos(20), schedule)
    assert result.mse == pytest.approx(Distillation(network, teacher, feature, feature).error(judge, 8), rel=1e-6)
    assert result.judged_on == "random views of 20 images that were learned from"
    assert result.history[0] == (0, result.mse_before)


def test_start_that_knows_the_images_by_heart_does_not_win_by_it():
    """A refit fits the few images themselves; only views of them that it has not seen say how good it is."""
    pair, data = small_pair(), photos(20)
    as_they_are = replace(data, preprocessing=replace(data.preprocessing, augment="none"))
    by_heart = Schedule(steps=50, batch_size=20, optimiser="adamw", learning_rate=1e-2, cosine=True)
    mimic(pair, list(pair.student.parameters()), (as_they_are, data), by_heart, Silent())
    known = pair.error(data, 20)
    start = replace(start_of(), weights=weights_of(pair.student))
    augmented = Schedule(steps=20, batch_size=20, optimiser="adamw", learning_rate=2e-3, keep_start=True)
    result = finetuning.finetune(pair, start, data, augmented, Silent())
    assert pair.error(data, 20) > known  # judged by the images themselves, the start would have been kept
    assert result.notes == () and result.mse < result.mse_before
