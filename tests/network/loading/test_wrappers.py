"""What training puts around a network is taken off, and said; what has no Python left is refused."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from practise_deploy.errors import InputError
from practise_deploy.network.loading.wrappers import without_wrappers
from practise_deploy.network.tracing.trace import trace

torch.set_num_threads(1)  # networks this small run slower on two
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x)).flatten(1)


class Decorated(Network):
    @torch.compile
    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.stem(x)).flatten(1)


def with_body(wrap) -> nn.Module:
    network = Network()
    network.body = wrap(network.body)
    return network


def compiled_in_place() -> nn.Module:
    network = Network()
    network.body[0].compile()
    return network


def compiled_forward() -> nn.Module:
    network = Network()
    network.forward = torch.compile(network.forward)
    return network


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: torch.compile(nn.DataParallel(Network())), "DataParallel (1x) and torch.compile (1x)"),
        (lambda: nn.DataParallel(with_body(nn.DataParallel)), "DataParallel (2x)"),
        (lambda: with_body(lambda body: nn.Sequential(*map(torch.compile, body))), "torch.compile (2x)"),
        (lambda: AveragedModel(Network()), "AveragedModel (1x)"),
        (compiled_in_place, "torch.compile (1x)"),
        (compiled_forward, "torch.compile (1x)"),
        (Decorated, "torch.compile (1x)"),
    ],
    ids=["both", "both sides", "each part", "average", "in place", "forward", "decorated"],
)
def test_wrappers_are_taken_off_inside_and_out_and_named(make, said):
    network, notes = without_wrappers(make().eval())
    assert len(notes) == 1 and said in notes[0]
    assert not any("module" in name or "_orig_mod" in name for name in network.state_dict())
    traced, whole = trace(network, (1, 3, 8, 8))
    assert whole == () and torch.equal(traced(X), Network().eval()(X))


def test_plain_network_is_itself_and_nothing_is_said():
    network = Network()
    assert without_wrappers(network) == (network, ())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [lambda each: each, nn.DataParallel], ids=["bare", "wrapped"])
def test_torchscript_is_refused_by_its_name(wrap):
    with pytest.raises(InputError, match="TorchScript") as error:
        without_wrappers(wrap(torch.jit.script(Network())))
    assert "return the Python module" in error.value.remedy


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_part_that_is_torchscript_is_left_as_it_is():
    network, _ = without_wrappers(with_body(torch.jit.script).eval())
    traced, _ = trace(network, (1, 3, 8, 8))
    assert torch.equal(traced(X), Network().eval()(X))
