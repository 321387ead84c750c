"""A network that takes or gives anything but one tensor is refused by what it takes and gives."""

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError
from practise_deploy.network.graph.outputs import flattened, names_of
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.tracing.trial import check_batches
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings

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


class Keyed(Network):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.logits(batch["pixels"] * batch.pop("the mask"))


class Attributed(Network):
    def forward(self, batch: object) -> Tensor:
        return self.logits(batch.images * batch.scale)


class Named(Network):
    def forward(self, *, images: Tensor) -> Tensor:
        return self.logits(images)


class Unpacked(Network):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        left, right = pair
        return self.logits(left) + self.logits(right)


class Listed(Network):
    def forward(self, views: list[Tensor]) -> Tensor:
        return self.logits(views.pop())


@pytest.mark.parametrize(
    "network, said",
    [
        (Pair, "forward needs left, right; it is run with one tensor of images"),
        (Asks, "forward needs x, mode;"),
        (Many, r"any number of inputs, \*views;"),
        (Sample, "takes a mapping with the keys image; it is run with one tensor of images"),
        (Keyed, "takes a mapping with the keys pixels, the mask;"),
        (Attributed, "takes an object with the attributes images, scale;"),
        (Unpacked, r"one tensor of images.*not enough values to unpack \(expected 2, got 1\)"),
        (Listed, "one tensor of images.*'Tensor' object has no attribute 'pop'"),
        (nn.Module, "one tensor of images"),
    ],
)
def test_network_that_needs_more_than_images_is_refused_by_what_it_takes_and_not_by_the_size(network, said):
    with pytest.raises(InputError, match=said) as error:
        trace(network().eval(), SHAPE)
    assert "--input-size" not in error.value.remedy and "takes the images alone" in error.value.remedy


@pytest.mark.parametrize(
    "network, rest",
    [(Pair, "images"), (Asks, "'plain'"), (Named, ""), (Sample, ""), (Keyed, "1.0"), (Attributed, "2.0")],
)
def test_what_the_remedy_says_to_write_runs(network, rest, tmp_path):
    """What is left to be filled in is filled in."""
    with pytest.raises(InputError) as error:
        trace(network().eval(), SHAPE)
    code = error.value.snippet
    assert ("..." in code) == bool(rest)
    file = tmp_path / "wrapped_networks.py"
    file.write_text(
        code.replace("...", rest) + f"\nfrom network.tracing.test_trial import {network.__name__} as FUNCTION\n"
    )
    loaded = load_network(Settings(network=f"{file}:wrapped", input_size=8))
    assert loaded.traced(torch.ones(2, *SHAPE[1:])).shape == (2, 4)


@pytest.mark.parametrize(
    "network, kind",
    [
        (nn.Sequential(nn.Conv3d(3, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten()), "videos"),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Flatten()), "signals"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Flatten()), "numbers of tokens"),
    ],
)
def test_network_of_another_kind_of_data_is_refused_by_that_kind(network, kind):
    with pytest.raises(InputError, match=f"the network takes {kind}, of shape .*, not images") as error:
        trace(network.eval(), SHAPE)
    assert (
        "--input-size" not in error.value.remedy
        and "give --data an .npz with an array of that shape" in error.value.remedy
    )


def test_wrong_number_of_channels_is_not_taken_for_another_kind_of_data():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="to have 1 channels, but got 3") as error:
        trace(network.eval(), SHAPE)
    assert "--mean" in error.value.remedy


def test_want_of_memory_is_no_fault_of_the_network():
    def forward(_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(RuntimeError, match="allocate memory"):
        trace(Gives(forward).eval(), SHAPE)


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
    "wrap, names",
    [
        (lambda y: Heads(y, y * 2), ("classes", "boxes")),
        (lambda y: Single(y), ("classes",)),
        (lambda y: Found(y, mask=y * 3), ("classes", "mask")),
        (lambda y: {"classes": y, "box": y * 2}, ("classes", "box")),
        (lambda y: OrderedDict(classes=y), ("classes",)),
        (lambda y: ([y, None], (y * 2, y * 3)), ("0.0", "1.0", "1.1")),
        (lambda y: [{"classes": y}], ("0.classes",)),
        (lambda y: Found({"deep": y}, mask=[y * 2]), ("classes.deep", "mask.0")),
        (lambda y: y, ("logits",)),
        (lambda y: (y,), ("logits",)),
    ],
    ids=[
        "named", "named of one", "dataclass", "dict", "dict of one", "nested", "list of a dict", "nested dataclass", "tensor",
        "tuple of one",
    ],
)  # fmt: skip
def test_outputs_of_any_structure_are_taken_one_after_another_by_their_names(wrap, names):
    network = Gives(wrap).eval()
    x = torch.randn(2, *SHAPE[1:])
    traced, _ = trace(network, SHAPE)
    assert names_of(traced) == names
    found = traced(x)
    expected = list(flattened(network(x)).values())
    assert all(map(torch.equal, found if isinstance(found, tuple) else (found,), expected))


@pytest.mark.parametrize(
    "wrap, said",
    [(lambda y: None, "a NoneType"), (lambda y: (), "a tuple"), (lambda y: {"classes": None}, "a dict of classes")],
    ids=["none", "empty", "dict of nothing"],
)
def test_network_that_gives_no_tensor_is_refused_by_what_it_gives(wrap, said):
    with pytest.raises(InputError, match=f"returns {said}, and no tensor in it") as error:
        trace(Gives(wrap).eval(), SHAPE)
    assert "returns the tensors" in error.value.remedy


class Maps(Network):
    """A backbone as torchvision's: maps by name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"0": self.convolution(x), "1": self.convolution(x) * 2}


class Pyramid(Network):
    def __init__(self) -> None:
        super().__init__()
        self.body = Maps()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"pool": self.body(x)["1"][..., :1]}


class Detector(Network):
    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = Pyramid() if backbone is None else backbone

    def forward(self, images: Tensor | list[Tensor], targets: None = None):
        return [{"boxes": image[0], "labels": image[0], "scores": image[0]} for image in images]


class Strict(Detector):
    def forward(self, images: list[Tensor]):
        return {}, super().forward(images.copy())


class Plain(Detector):
    """Of a backbone that returns a tensor."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 8))


@pytest.mark.parametrize("network", [Detector, Strict, Plain])
def test_detector_is_refused_as_one_and_its_backbone_wrapped_as_the_remedy_says_runs(network, tmp_path):
    with pytest.raises(InputError, match="is a detector: it returns boxes, labels, scores as a dictionary") as error:
        trace(network().eval(), SHAPE)
    assert "prune its backbone alone" in error.value.remedy and "logits" not in error.value.remedy
    file = tmp_path / "wrapped_detectors.py"
    file.write_text(error.value.snippet + f"\nfrom network.tracing.test_trial import {network.__name__} as FUNCTION\n")
    loaded = load_network(Settings(network=f"{file}:wrapped", input_size=8))
    assert loaded.traced(torch.ones(2, *SHAPE[1:])).shape == (2, 4, 1, 1)


def test_detector_of_torchvision_is_refused_and_its_backbone_has_blocks_to_drop(tmp_path):
    name = "ssdlite320_mobilenet_v3_large"
    with pytest.raises(InputError, match=f"{name}: the network is a detector") as error:
        load_network(Settings(network=f"torchvision:{name}", input_size=64), structure_only=True)
    file = tmp_path / "wrapped_ssd.py"
    made = f"from torchvision.models.detection import {name}\ndef FUNCTION(): return {name}(weights_backbone=None)\n"
    file.write_text(made + error.value.snippet)
    loaded = load_network(Settings(network=f"{file}:wrapped", input_size=64))
    assert any(block.droppable for block in find_blocks(loaded.traced, loaded.input_shape))


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
