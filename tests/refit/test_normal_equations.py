"""The least squares of a site against dense solutions, and every way to solve it."""

import pytest
import torch
from torch import Tensor

from practise_deploy.refit.normal_equations import NormalEquations
from practise_deploy.refit.solvers import basic_solvers
from samples.solving import dense, rows, summed


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 1.0, 100.0])
def test_solution_is_that_of_dense_least_squares_with_a_pull_to_the_start(ridge):
    patches, targets, start = rows()
    found = summed(patches, targets).solve(ridge, start)
    torch.testing.assert_close(found, dense(patches, targets, start, ridge), rtol=1e-9, atol=1e-9)


def test_solution_without_ridge_is_ordinary_least_squares():
    patches, targets, start = rows()
    wanted = torch.linalg.lstsq(patches, targets).solution
    torch.testing.assert_close(summed(patches, targets).solve(0.0, start), wanted, rtol=1e-6, atol=1e-6)


def test_under_determined_solution_is_dense_least_squares_too():
    patches, targets, start = rows(count=5, width=20)
    found = summed(patches, targets).solve(0.1, start)
    torch.testing.assert_close(found, dense(patches, targets, start, 0.1), rtol=1e-8, atol=1e-8)


def test_sums_that_rounding_made_indefinite_are_solved_all_the_same():
    """Cholesky's decomposition has no factor of them."""
    patches, targets, start = rows(width=4)
    equations = summed(patches, targets)
    assert equations.gram is not None and equations.xty is not None
    equations.gram[0, 0] -= 2 * equations.gram[0, 0] + 1
    before, hold = equations.gram.clone(), float(equations.gram.diagonal()[:-1].mean())
    found = equations.solve(1e-3, start)
    holds = torch.full((5,), 1e-3 * hold + 1e-12, dtype=torch.float64)
    holds[-1] = 1e-9 * len(patches) + 1e-12
    left = before + torch.diag(holds)
    assert int(torch.linalg.cholesky_ex(left).info)
    torch.testing.assert_close(left @ found, equations.xty + holds[:, None] * start, rtol=1e-9, atol=1e-9)
    assert torch.equal(equations.gram, before)


def test_huge_ridge_keeps_the_weights_and_still_moves_the_bias():
    patches, targets, start = rows()
    found = summed(patches, targets).solve(1e9, start)
    torch.testing.assert_close(found[:-1], start[:-1], rtol=1e-6, atol=1e-6)
    free = (targets - patches[:, :-1] @ start[:-1]).mean(0)
    torch.testing.assert_close(found[-1], free, rtol=1e-5, atol=1e-5)


def test_start_that_fits_already_is_the_solution_for_every_ridge():
    patches, _, start = rows()
    for ridge in (0.0, 0.1, 10.0):
        found = summed(patches, patches @ start).solve(ridge, start)
        torch.testing.assert_close(found, start, rtol=1e-8, atol=1e-8)


def test_bias_takes_the_mean_error_away():
    patches, targets, start = rows()
    found = summed(patches, targets).with_bias(start)
    torch.testing.assert_close(found[:-1], start[:-1])
    torch.testing.assert_close(
        (patches @ found - targets).mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0
    )


def test_scale_and_bias_are_those_of_a_regression_on_each_output():
    patches, targets, start = rows(count=4000)
    found = patches @ summed(patches, targets).with_scale(start)
    outputs = patches @ start
    hold = 0.01 * outputs.var(0, correction=0).mean()
    for n in range(3):
        centred, goal = outputs[:, n] - outputs[:, n].mean(), targets[:, n] - targets[:, n].mean()
        scale = (float((centred * goal).mean()) + hold) / (float((centred**2).mean()) + hold)
        torch.testing.assert_close(found[:, n], targets[:, n].mean() + scale * centred, rtol=1e-8, atol=1e-8)


def test_repaired_solution_varies_as_its_targets_do():
    patches, targets, start = rows(count=400, width=40)
    equations = summed(patches, targets)
    solution = equations.solve(0.3, start * 0)
    repaired = patches @ equations.with_variance(solution)
    wanted = targets.var(0, correction=0) / (patches @ solution).var(0, correction=0)
    scale = wanted.sqrt().clamp(0.5, 2.0)
    torch.testing.assert_close(repaired.var(0, correction=0), scale**2 * (patches @ solution).var(0, correction=0))
    torch.testing.assert_close(repaired.mean(0), targets.mean(0), rtol=1e-8, atol=1e-8)


def test_weights_count_rows_as_often_as_they_say():
    patches, targets, start = rows(count=30)
    counts = torch.arange(30) % 3
    weighted, repeated = NormalEquations(), NormalEquations()
    weighted.add(patches, targets, counts.double())
    repeated.add(patches.repeat_interleave(counts, 0), targets.repeat_interleave(counts, 0))
    assert weighted.rows == repeated.rows
    for name, solver in basic_solvers().items():
        torch.testing.assert_close(
            solver.solve(weighted, start), solver.solve(repeated, start), rtol=1e-7, atol=1e-7, msg=name
        )


def test_every_way_to_solve_fits_no_worse_than_doing_nothing():
    patches, targets, start = rows()
    equations = summed(patches, targets)

    def error(solution: Tensor) -> float:
        return float((patches @ solution - targets).square().sum())

    plain = error(start)
    for name, solver in basic_solvers().items():
        assert error(solver.solve(equations, start)) <= plain * (1 + 1e-9), name


def test_rows_added_in_batches_give_what_one_batch_gives():
    patches, targets, start = rows()
    batched = NormalEquations()
    for part in (slice(0, 1), slice(1, 33), slice(33, 60)):
        batched.add(patches[part], targets[part])
    assert batched.rows == 60
    torch.testing.assert_close(
        batched.solve(0.1, start), summed(patches, targets).solve(0.1, start), rtol=1e-12, atol=1e-12
    )


def test_fp32_rows_are_summed_over_batches_in_fp64():
    equations = NormalEquations()
    for _ in range(3):
        equations.add(torch.full((2, 2), 4096.0), torch.ones(2, 1))
    equations.add(torch.full((1, 2), 1e-3), torch.ones(1, 1))
    assert equations.gram is not None and equations.gram.dtype == torch.float64
    assert float(equations.gram[0, 0]) > 6 * 4096.0**2  # in fp32 the last row would be lost
