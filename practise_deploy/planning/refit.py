"""The closed-form refit: a kept convolution learns by least squares to do a dropped block's work too."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from practise_deploy.planning.equations import NormalEquations
from practise_deploy.planning.writers import Site, Writer


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


def start_of(traced: fx.GraphModule, site: Site) -> Tensor:
    """The folded weights of all writers of a site one upon another, their biases added up. Shapes: [d + 1, outputs]."""
    starts = [folded(traced, writer) for writer in site.writers]
    return torch.cat([*(each[:-1] for each in starts), torch.stack([each[-1] for each in starts]).sum(0)[None]])


def put_in(traced: fx.GraphModule, site: Site, solution: Tensor, equations: NormalEquations) -> None:
    """Put a joint solution into the writers of a site; the bias goes to the first. equations: those of its rows."""
    begin = 0
    for number, writer in enumerate(site.writers):
        convolution = traced.get_submodule(str(writer.convolution.target))
        assert isinstance(convolution, nn.Conv2d)
        rows = slice(begin, begin + convolution.weight[0].numel())
        bias = solution[-1] if number == 0 else torch.zeros_like(solution[-1])
        write_back(traced, writer, torch.cat([solution[rows], bias[None]]), equations, rows)
        begin = rows.stop
