"""The closed-form refit: a kept convolution learns by least squares to do a dropped block's work too."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from practise_deploy.planning.equations import NormalEquations
from practise_deploy.planning.pointwise import multiply_behind
from practise_deploy.planning.writers import Site, Writer, convolution_at, norm_of


def folded(traced: fx.GraphModule, writer: Writer) -> Tensor:
    """The writer's weights with its BatchNorm folded in, as the refit sees them. Shapes: [d + 1, outputs], bias last."""
    convolution, norm = convolution_at(traced, writer.convolution), norm_of(traced, writer)
    weight = convolution.weight.detach().double().flatten(1)
    bias = weight.new_zeros(len(weight)) if convolution.bias is None else convolution.bias.detach().double()
    if norm is not None:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach().double() * (norm.running_var.double() + norm.eps).rsqrt()
        weight, bias = (
            weight * scale[:, None],
            (bias - norm.running_mean.double()) * scale + norm.bias.detach().double(),
        )
    return torch.cat([weight.T, bias[None]])


def write_back(
    traced: fx.GraphModule, writer: Writer, solution: Tensor, equations: NormalEquations, rows: slice
) -> None:
    """Put solved weights into the writer; a BatchNorm behind it gets the statistics of the rows that were summed."""
    _write(traced, writer, solution, *_output_statistics(equations, solution[:-1], rows))


def map_output(traced: fx.GraphModule, writer: Writer, matrix: Tensor) -> None:
    """Put a linear map behind a writer into its weights. Shapes: [outputs, outputs].

    A BatchNorm's statistics are mapped too, as if the outputs were not correlated (that matters in training mode alone).
    """
    norm = norm_of(traced, writer)
    if norm is None:
        multiply_behind(convolution_at(traced, writer.convolution), matrix)
        return
    assert norm.running_var is not None
    own = folded(traced, writer)
    gain = norm.weight.detach().double()
    mean = norm.bias.detach().double() - own[-1]
    variance = gain.square() * norm.running_var.double() / (norm.running_var.double() + norm.eps)
    _write(traced, writer, own @ matrix.T, matrix @ mean, matrix.square() @ variance)


def add_bias(traced: fx.GraphModule, writer: Writer, bias: Tensor) -> None:
    """Add to what a writer gives at every position. Shapes: [outputs]."""
    norm = norm_of(traced, writer)
    own = _bias_of(convolution_at(traced, writer.convolution)) if norm is None else norm.bias
    with torch.no_grad():
        own.copy_(own.double() + bias)


def _write(traced: fx.GraphModule, writer: Writer, solution: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Put folded weights into the writer. mean, variance: of what they give without the bias.

    A BatchNorm behind it is set to that mean and variance, with scale and shift that undo them: the same in eval
    mode, and a network that can still be finetuned (folded ones diverge).
    """
    convolution, norm = convolution_at(traced, writer.convolution), norm_of(traced, writer)
    weight, bias = solution[:-1], solution[-1]
    with torch.no_grad():
        convolution.weight.copy_(weight.T.reshape(convolution.weight.shape))
        if norm is None:
            _bias_of(convolution).copy_(bias)
            return
        if convolution.bias is not None:
            convolution.bias.zero_()
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(bias + norm.running_mean.double())


def _bias_of(convolution: nn.Conv2d) -> Tensor:
    """The convolution's bias, given one where it has none."""
    if convolution.bias is None:
        convolution.bias = nn.Parameter(convolution.weight.new_zeros(convolution.out_channels))
    return convolution.bias


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
        rows = slice(begin, begin + convolution_at(traced, writer.convolution).weight[0].numel())
        bias = solution[-1] if number == 0 else torch.zeros_like(solution[-1])
        write_back(traced, writer, torch.cat([solution[rows], bias[None]]), equations, rows)
        begin = rows.stop
