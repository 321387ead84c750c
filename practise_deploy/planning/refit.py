"""The closed-form refit: a kept convolution learns by least squares to do a dropped block's work too.

With P the patches of the writer's input (im2col, with a ones column), T the target less what the rest of
the sum gives, and W0 the writer's own weights (BatchNorm folded):

    W' = argmin ||P W - T||^2 + a ||W - W0||^2 = (P'P + a I)^-1 (P'T + a W0),   a = ridge * tr(P'P) / d

It is exact, convex, free of a learning rate, and leaves no operator behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from practise_deploy.model.blocks import is_addition, is_relu
from practise_deploy.model.trace import module_of, shape_of
from practise_deploy.model.values import Env, named

ROWS = 20_000
_PASSES_THROUGH = (nn.Identity, nn.Dropout)


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


@dataclass(slots=True)
class NormalEquations:
    """Sums over rows: gram P'P [d, d] and moment P'T [d, outputs], in fp64."""

    gram: Tensor | None = None
    moment: Tensor | None = None
    rows: int = 0

    def add(self, patches: Tensor, targets: Tensor) -> None:
        """Add rows. Shapes: patches [rows, d] with the ones column last, targets [rows, outputs]."""
        gram, moment = (patches.T @ patches).double(), (patches.T @ targets).double()
        self.gram = gram if self.gram is None else self.gram + gram
        self.moment = moment if self.moment is None else self.moment + moment
        self.rows += len(patches)

    def solve(self, ridge: float, start: Tensor) -> Tensor:
        """The ridge solution around `start`. Shapes: [d, outputs]. The bias row is hardly held back."""
        assert self.gram is not None and self.moment is not None
        weights = self.gram.diagonal()[:-1]
        hold = torch.full_like(self.gram.diagonal(), ridge * float(weights.mean()) + 1e-12)
        hold[-1] = 1e-9 * self.rows
        left = self.gram + torch.diag(hold)
        return torch.linalg.solve(left, self.moment + hold[:, None] * start.double())


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
        if isinstance(module, nn.BatchNorm2d) and norm is None and _settable(module) and _called_once(node):
            norm = node
        elif isinstance(module, nn.Conv2d):
            return Writer(node, output, norm) if _solvable(module) and _called_once(node) else None
        elif not (
            isinstance(module, _PASSES_THROUGH)
            or "Drop" in type(module).__name__
            or "StochasticDepth" in type(module).__name__
        ):
            return None
        node = node.all_input_nodes[0]


def _called_once(node: fx.Node) -> bool:
    return len(node.graph.find_nodes(op="call_module", target=node.target, sort=False)) == 1


def _settable(module: nn.BatchNorm2d) -> bool:
    own_forward = type(module).forward is not nn.BatchNorm2d.forward
    return module.affine and module.running_mean is not None and not own_forward


def _solvable(module: nn.Conv2d) -> bool:
    padded = isinstance(module.padding, str) or (module.padding_mode != "zeros" and any(module.padding))
    own_forward = type(module).forward is not nn.Conv2d.forward
    return module.groups == 1 and not padded and not own_forward


def writers_into(traced: fx.GraphModule, value: fx.Node) -> tuple[Writer, ...]:
    """The writers of a value: itself a writer's output, or a sum with such terms."""
    terms = [n for n in value.all_input_nodes] if is_addition(value) else [value]
    found = [writer_of(traced, term) for term in terms]
    alone = [
        w for w, term in zip(found, terms, strict=True) if w is not None and (term is value or len(term.users) == 1)
    ]
    return tuple(alone)


def before_activation(traced: fx.GraphModule, value: fx.Node) -> fx.Node:
    """The value under a ReLU; the value itself where its stream is linear."""
    return value.all_input_nodes[0] if is_relu(traced, value) else value


def readers_of(traced: fx.GraphModule, node: fx.Node) -> list[fx.Node]:
    """Who uses a value, seen through zero padding and what does nothing in eval mode."""
    found = []
    for user in node.users:
        passes = isinstance(module_of(traced, user), (nn.Identity, nn.Dropout, nn.ZeroPad2d))
        found += readers_of(traced, user) if passes else [user]
    return found


def junction_site(student: fx.GraphModule, teacher: fx.GraphModule, entry: str, exit_: str) -> Site | None:
    """Where a cut can be refitted: the value that stays, and the teacher's value it stands for.

    None where nothing linear writes it (a stem behind max pooling), or activations differ on both sides.
    """
    kept, goal = named(student, entry), named(teacher, exit_)
    if is_relu(student, kept) != is_relu(teacher, goal):
        return None
    value = before_activation(student, kept)
    writers = writers_into(student, value)
    return Site(value, writers, before_activation(teacher, goal).name) if writers else None


def folded(traced: fx.GraphModule, writer: Writer) -> Tensor:
    """The writer's weights with its BatchNorm folded in, as the refit sees them. Shapes: [d + 1, outputs], bias last."""
    convolution = traced.get_submodule(str(writer.convolution.target))
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight.detach().double().flatten(1)
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().double()
    if writer.norm is not None:
        norm = traced.get_submodule(str(writer.norm.target))
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None and norm.running_mean is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        shift = -norm.running_mean.double() * scale
        if norm.affine:
            scale, shift = (
                scale * norm.weight.detach().double(),
                shift * norm.weight.detach().double() + norm.bias.detach().double(),
            )
        weight, bias = weight * scale[:, None], bias * scale + shift
    return torch.cat([weight.T, bias[None]])


def write_back(
    traced: fx.GraphModule, writer: Writer, solution: Tensor, equations: NormalEquations, rows: slice
) -> None:
    """Put solved weights into the writer.

    A BatchNorm behind it is set to the new output's own mean and variance, with scale and shift that undo
    them: the same in eval mode, and a network that can still be finetuned (folded ones diverge).
    """
    convolution = traced.get_submodule(str(writer.convolution.target))
    assert isinstance(convolution, nn.Conv2d)
    weight, bias = solution[:-1], solution[-1]
    with torch.no_grad():
        convolution.weight.copy_(weight.T.reshape(convolution.weight.shape))
        if writer.norm is None:
            if convolution.bias is None:
                convolution.bias = nn.Parameter(bias.to(convolution.weight))
            convolution.bias.copy_(bias)
            return
        norm = traced.get_submodule(str(writer.norm.target))
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
        if convolution.bias is not None:
            convolution.bias.zero_()
        mean, variance = _output_statistics(equations, weight, rows)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        scale = (norm.running_var.double() + norm.eps).sqrt()
        norm.weight.copy_(scale)
        norm.bias.copy_(bias + norm.running_mean.double())


def _output_statistics(equations: NormalEquations, weight: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Mean and variance of the convolution's output over the rows that were summed."""
    assert equations.gram is not None
    gram = equations.gram[rows, rows] / equations.rows
    mean = weight.T @ (equations.gram[rows, -1] / equations.rows)
    variance = ((gram @ weight) * weight).sum(0) - mean**2
    return mean, variance.clamp_min(1e-12)


class Sampler:
    """Draws the same random positions of every image, so that about ROWS rows are summed in all."""

    def __init__(self, images: int, seed: int) -> None:
        self.per_image = max(1, ROWS // max(1, images))
        self.seed = seed

    def positions(self, value: fx.Node) -> tuple[Tensor, Tensor]:
        """Rows and columns of the drawn positions in a value's height and width."""
        shape = shape_of(value)
        assert shape is not None and len(shape) == 4
        height, width = shape[2], shape[3]
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(height * width, generator=generator)[: self.per_image]
        return drawn // width, drawn % width


def patches_of(convolution: nn.Conv2d, x: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """im2col at some output positions. Shapes: x [n, c, h, w] -> [n * positions, c * kernel]."""
    (kh, kw), (sh, sw), (dh, dw) = convolution.kernel_size, convolution.stride, convolution.dilation
    ph, pw = (int(side) for side in convolution.padding)
    padded = nn.functional.pad(x, (pw, pw, ph, ph))
    rows, columns = positions
    taps = [padded[:, :, rows * sh + i * dh, columns * sw + j * dw] for i in range(kh) for j in range(kw)]
    return torch.stack(taps, 2).permute(0, 3, 1, 2).flatten(0, 1).flatten(1)


def rows_for(traced: fx.GraphModule, site: Site, env: Env, wanted: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Patches of all writers with the ones column, and what the writers together should give.

    Shapes: wanted [n, positions, channels], the teacher's value at the drawn positions -> [rows, d + 1], [rows, channels].
    """
    at = sampler.positions(site.value)
    rest = wanted - at_positions(env[site.value.name], at)
    parts = []
    for writer in site.writers:
        convolution = traced.get_submodule(str(writer.convolution.target))
        assert isinstance(convolution, nn.Conv2d)
        parts.append(patches_of(convolution, env[writer.source.name], at))
        rest = rest + at_positions(env[writer.output.name], at)
    ones = parts[0].new_ones(len(parts[0]), 1)
    return torch.cat([*parts, ones], 1), rest.flatten(0, 1)


def at_positions(value: Tensor, positions: tuple[Tensor, Tensor]) -> Tensor:
    """Shapes: [n, channels, height, width] -> [n, positions, channels]."""
    return value[:, :, positions[0], positions[1]].permute(0, 2, 1)


def values_for(site: Site) -> list[fx.Node]:
    """The values that `rows_for` needs."""
    return [site.value, *(w.source for w in site.writers), *(w.output for w in site.writers)]


def solve_site(traced: fx.GraphModule, site: Site, equations: NormalEquations, ridge: float) -> None:
    """Solve for all writers of a site together and put the solutions in; the bias goes to the first."""
    starts = [folded(traced, writer) for writer in site.writers]
    start = torch.cat([*(each[:-1] for each in starts), torch.stack([each[-1] for each in starts]).sum(0)[None]])
    solution = equations.solve(ridge, start)
    begin = 0
    for number, (writer, own) in enumerate(zip(site.writers, starts, strict=True)):
        rows = slice(begin, begin + len(own) - 1)
        bias = solution[-1] if number == 0 else torch.zeros_like(solution[-1])
        write_back(traced, writer, torch.cat([solution[rows], bias[None]]), equations, rows)
        begin = rows.stop
