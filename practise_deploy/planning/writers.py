"""Writers, the last affine operators of branches, and sites, the stream values that they add into."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from practise_deploy.model.operators import is_addition, is_as_its_class, is_relu, module_of


@dataclass(frozen=True, slots=True)
class Writer:
    """The last affine operator of a branch that adds into a stream: a convolution and the BatchNorm behind it."""

    convolution: fx.Node
    output: fx.Node
    norm: fx.Node | None

    @property
    def source(self) -> fx.Node:
        """The convolution's input, h in the formulas."""
        return self.convolution.all_input_nodes[0]


@dataclass(frozen=True, slots=True)
class Site:
    """A stream value z before its activation, and the writers that add into it; `target` is z's name in the teacher."""

    value: fx.Node
    writers: tuple[Writer, ...]
    target: str


def writer_of(traced: fx.GraphModule, node: fx.Node) -> Writer | None:
    """The writer whose output a value is, through BatchNorm and what does nothing in eval mode.

    None where nothing can be solved for, or where its weights also make a value that is used elsewhere.
    """
    norm = None
    output = node
    while True:
        module = module_of(traced, node)
        if len(node.users) > 1 and node is not output:
            return None
        if isinstance(module, nn.BatchNorm2d) and norm is None and _settable(module) and called_once(node):
            norm = node
        elif isinstance(module, nn.Conv2d):
            return Writer(node, output, norm) if is_plain(traced, node) else None
        elif not does_nothing(module):
            return None
        node = node.all_input_nodes[0]


def convolution_at(traced: fx.GraphModule, node: fx.Node) -> nn.Conv2d:
    """The convolution that a node calls."""
    module = traced.get_submodule(str(node.target))
    assert isinstance(module, nn.Conv2d)
    return module


def norm_of(traced: fx.GraphModule, writer: Writer) -> nn.BatchNorm2d | None:
    """The BatchNorm behind the writer's convolution."""
    if writer.norm is None:
        return None
    module = traced.get_submodule(str(writer.norm.target))
    assert isinstance(module, nn.BatchNorm2d)
    return module


def is_plain(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is a convolution of all channels that its weights alone describe, called nowhere else."""
    module = module_of(traced, node)
    if not isinstance(module, nn.Conv2d) or type(module).forward is not nn.Conv2d.forward or module.groups != 1:
        return False
    if not is_as_its_class(module):
        return False
    padded = isinstance(module.padding, str) or (module.padding_mode != "zeros" and any(module.padding))
    return not padded and called_once(node)


def does_nothing(module: nn.Module | None) -> bool:
    """Whether a module gives what it gets in eval mode: an identity (some networks have their own), or dropout of any kind."""
    kind = type(module).__name__
    return kind in ("Identity", "StochasticDepth") or "Drop" in kind


def passes_on(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is another one as it is in eval mode, or with zeros around it."""
    module = module_of(traced, node)
    return does_nothing(module) or isinstance(module, nn.ZeroPad2d)


def called_once(node: fx.Node) -> bool:
    """Whether a module is called nowhere else."""
    return len(node.graph.find_nodes(op="call_module", target=node.target, sort=False)) == 1


def _settable(module: nn.BatchNorm2d) -> bool:
    own_forward = type(module).forward is not nn.BatchNorm2d.forward
    return module.affine and module.running_mean is not None and not own_forward


def writers_into(traced: fx.GraphModule, value: fx.Node) -> tuple[Writer, ...]:
    """The writers of a value: itself a writer's output, or a sum with such terms."""
    terms = [n for n in value.all_input_nodes] if is_addition(value) else [value]
    found = [writer_of(traced, term) for term in terms]
    alone = [
        w for w, term in zip(found, terms, strict=True) if w is not None and (term is value or len(term.users) == 1)
    ]
    return tuple(alone)


def as_it_was(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value that another one is in eval mode, seen through what does nothing."""
    while does_nothing(module_of(traced, value)):
        value = value.all_input_nodes[0]
    return value


def before_activation(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value under a ReLU; the value itself where its stream is linear."""
    return value.all_input_nodes[0] if is_relu(traced, value) else value


def readers_of(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Who uses a value, seen through zero padding and what does nothing in eval mode."""
    found = []
    for user in node.users:
        found += readers_of(traced, user) if passes_on(traced, user) else [user]
    return found
