"""The closed-form refit: a kept convolution or linear layer learns by least squares to do a dropped block's work too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from practise_deploy.refit.affine import Affine
from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.writers import ReconstructionPoint, Writer


def folded_weights(writer: Writer) -> Tensor:
    """The writer's weights with its BatchNorm, its scale and constants folded in, as the refit sees them.

    Shapes: [d + 1, outputs], bias last.
    """
    norm, scale = writer.norm, writer.factors
    weights = _with_bias(writer.layer)
    if norm is not None:
        # fold: with g = gamma / sqrt(var + eps), the weight is g W and the bias g (b - mean) + beta
        weight, bias = weights[:-1].T, weights[-1]
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight.detach().double() * (norm.running_var.double() + norm.eps).rsqrt()
        weight, bias = (
            weight * gain[:, None],
            (bias - norm.running_mean.double()) * gain + norm.bias.detach().double(),
        )
        weights = torch.cat([weight.T, bias[None]])
    weights = weights * writer.constant
    return weights if scale is None else weights * scale.detach().double().flatten()


def _with_bias(operator: Affine) -> Tensor:
    """An operator's weights with its bias. Shapes: [d + 1, outputs], bias last, in fp64."""
    weight = operator.weight.detach().double().flatten(1)
    bias = weight.new_zeros(len(weight)) if operator.bias is None else operator.bias.detach().double()
    return torch.cat([weight.T, bias[None]])


def write_back(writer: Writer, solution: Tensor, equations: NormalEquations, rows: slice) -> None:
    """Put solved weights into the writer; a BatchNorm behind it gets the statistics of the rows that were summed.

    Shapes: solution [d + 1, outputs], bias last.
    """
    solution = solution / writer.constant
    if writer.norm is None:
        _write(writer, solution)
    else:
        _write_normed(writer, solution, *_output_statistics(equations, solution[:-1], rows))


def _write(writer: Writer, solution: Tensor) -> None:
    """Put folded weights into a writer without BatchNorm.

    A scale behind it takes up how much longer each output's weights and bias are than they were: the operator keeps its
    own size, to which a rate of finetuning suits, even where the factor was next to nothing.
    Shapes: solution [d + 1, outputs], bias last.
    """
    operator, scale = writer.layer, writer.factors
    with torch.no_grad():
        if scale is not None:
            # factor = sign * (new length / old length); the operator then holds the solution over the factor
            together = (0,) if scale.numel() == solution.shape[1] else (0, 1)  # or one factor for all outputs
            lengths, signs = _with_bias(operator).norm(dim=together), torch.where(scale.flatten() < 0, -1.0, 1.0)
            new_lengths = solution.norm(dim=together)
            usable = (lengths > 0) & (new_lengths > 0)
            scale.copy_(torch.where(usable, signs.double() * new_lengths / lengths.where(usable, 1), 1).view_as(scale))
            solution = solution / scale.double().flatten()
        operator.weight.copy_(solution[:-1].T.reshape(operator.weight.shape))
        if operator.bias is not None or solution[-1].any():
            _bias_of(operator).copy_(solution[-1])


def _write_normed(writer: Writer, solution: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Put folded weights into a writer with BatchNorm. mean, variance: of what they give without the bias.

    The BatchNorm is set to that mean and variance, with scale and shift that undo them: the same in eval
    mode, and a network that can still be finetuned (folded ones diverge).
    Shapes: solution [d + 1, outputs], bias last; mean, variance [outputs].
    """
    operator, norm, scale = writer.layer, writer.norm, writer.factors
    assert norm is not None and norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        operator.weight.copy_(solution[:-1].T.reshape(operator.weight.shape))
        if operator.bias is not None:
            operator.bias.zero_()
        # gamma = sqrt(var + eps) and beta = bias + mean: the norm gives W' x + bias again
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((norm.running_var.double() + norm.eps).sqrt())
        norm.bias.copy_(solution[-1] + norm.running_mean.double())
        if scale is not None:
            scale.fill_(1.0)


def _bias_of(operator: Affine) -> Tensor:
    """The operator's bias, given one where it has none. Shapes: [outputs]."""
    if operator.bias is None:
        operator.bias = nn.Parameter(operator.weight.new_zeros(len(operator.weight)))
    return operator.bias


def _output_statistics(equations: NormalEquations, weight: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Mean and variance of the operator's output over the rows that were summed. Shapes: weight [d, outputs] -> [outputs] each."""
    assert equations.gram is not None
    # mean(y) = w' mean(p), as the last column of P is ones; var(y) = w' P'P w / n - mean(y)^2
    gram = equations.gram[rows, rows] / equations.rows
    mean = weight.T @ (equations.gram[rows, -1] / equations.rows)
    variance = ((gram @ weight) * weight).sum(0) - mean**2
    return mean, variance.clamp_min(1e-12)


def start_of(point: ReconstructionPoint) -> Tensor:
    """The folded weights of all writers of a point one upon another, their biases added up. Shapes: [d + 1, outputs]."""
    starts = [folded_weights(writer) for writer in point.writers]
    return torch.cat([*(each[:-1] for each in starts), torch.stack([each[-1] for each in starts]).sum(0)[None]])


def put_in(point: ReconstructionPoint, solution: Tensor, equations: NormalEquations) -> None:
    """Put a joint solution into the writers of a point; the bias goes to the first. equations: those of its rows.

    Shapes: solution [d + 1, outputs], d of all writers.
    """
    begin = 0
    for number, writer in enumerate(point.writers):
        rows = slice(begin, begin + writer.fan_in)
        bias = solution[-1] if number == 0 else torch.zeros_like(solution[-1])
        write_back(writer, torch.cat([solution[rows], bias[None]]), equations, rows)
        begin = rows.stop
