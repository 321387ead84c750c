"""A network that takes or gives anything but one tensor is refused by what it takes and gives."""

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError
from practise_deploy.model.trace import trace
from practise_deploy.model.trial import check_batches

torch.set_num_threads(1)  # networks this small run slower on two
SHAPE = (1, 3, 8, 8)
Heads = namedtuple("Heads", "classes boxes")
Single = namedtuple("Single", "classes")


@dataclass
class Found:
    classes: Tensor
    mask: Tensor


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 8)

    def logits(self, x: Tensor) -> Tensor:
        return self.convolution(x).flatten(1)


class Pair(Network):
    def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return self.logits(left) + self.logits(right) * scale


class Asks(Network):
    def forward(self, x: Tensor, *, mode: str) -> Tensor:
        return self.logits(x)


class Many(Network):
    def forward(self, *views: Tensor) -> Tensor:
        return sum(map(self.logits, views))


class Sample(Network):
    def forward(self, sample: dict[str, Tensor]) -> Tensor:
        return self.logits(sample.get("image"))


class Listed(Network):
    def forward(self, views: list[Tensor]) -> Tensor:
        return self.logits(views.pop())


@pytest.mark.parametrize(
    "network, said",
    [
        (Pair, "forward needs left, right; it is run with one tensor of images"),
        (Asks, "forward needs x, mode;"),
        (Many, r"any number of inputs, \*views;"),
        (Sample, "one tensor of images.*'Tensor' object has no attribute 'get'"),
        (Listed, "one tensor of images.*'Tensor' object has no attribute 'pop'"),
        (nn.Module, "one tensor of images"),
    ],
)
def test_network_that_needs_more_than_images_is_refused_by_what_it_takes_and_not_by_the_size(network, said):
    with pytest.raises(InputError, match=said) as error:
        trace(network().eval(), SHAPE)
    assert "--input-size" not in error.value.remedy and "takes the images alone" in error.value.remedy


class OfText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        _, words = ids.shape
        return self.embedding(ids).sum(1) / words


def test_network_of_token_ids_is_called_one_and_told_what_works_instead():
    with pytest.raises(InputError, match="the network takes token ids, and only networks that take images") as error:
        trace(OfText().eval(), SHAPE)
    assert "practise-deploy bench FILE.onnx" in error.value.remedy


def test_forward_that_exits_is_an_error():
    with pytest.raises(InputError, match=r"forward ended with exit\(3\)"):
        trace(Gives(lambda _: sys.exit(3)).eval(), SHAPE)


class Gives(Network):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor):
        return self.wrap(self.logits(x))


@pytest.mark.parametrize(
    "wrap, said",
    [
        (lambda y: Heads(y, y * 2), "a Heads of classes, boxes"),
        (lambda y: Single(y), "a Single of classes"),
        (lambda y: Found(y, mask=y), "a Found of classes, mask"),
        (lambda y: {"classes": y, "box": y}, "a dict of classes, box"),
        (lambda y: OrderedDict(classes=y), "a OrderedDict of classes"),
        (lambda y: ([y, None], (y, y)), "2 outputs"),
        (lambda y: [{"classes": y}], "a dict of classes"),
        (lambda y: None, "a NoneType"),
        (lambda y: (), "0 outputs"),
    ],
    ids=["named", "named of one", "dataclass", "dict", "dict of one", "nested", "list of a dict", "none", "empty"],
)
def test_network_that_gives_more_than_one_tensor_is_refused_by_what_it_gives(wrap, said):
    with pytest.raises(InputError, match=f"returns {said}") as error:
        trace(Gives(wrap).eval(), SHAPE)
    assert "returns the logits alone" in error.value.remedy


def test_tuple_of_one_output_is_that_output():
    traced, _ = trace(Gives(lambda y: (None, [y])).eval(), SHAPE)
    assert traced(torch.ones(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    "wrap, said",
    [
        (lambda y: y.view(4), "on one image, but not on two: shape '.4.' is invalid"),
        (lambda y: y.view(1, -1), r"\(1, 4\) for one image and \(1, 8\) for two"),
        (lambda y: y.squeeze(), r"\(4,\) for one image and \(2, 4\) for two"),
        (lambda y: y.mean(), r"\(\) for one image and \(\) for two"),
        (lambda y: y.t(), r"\(4, 1\) for one image and \(4, 2\) for two"),
    ],
    ids=["fixed", "flattened", "squeezed", "mean", "transposed"],
)
def test_network_that_gives_no_output_for_each_image_is_refused(wrap, said):
    with pytest.raises(InputError, match=said) as error:
        check_batches(trace(Gives(wrap).eval(), SHAPE)[0])
    assert error.value.remedy


@pytest.mark.parametrize("wrap", [lambda y: y[:, 0], lambda y: y[:, None], lambda y: y[..., None, None, None]])
def test_outputs_of_any_rank_are_taken_where_there_is_one_for_each_image(wrap):
    check_batches(trace(Gives(wrap).eval(), SHAPE)[0])
