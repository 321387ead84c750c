"""What holds for every least squares problem."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from practise_deploy.refit.normal_equations import NormalEquations

problems = st.tuples(
    st.integers(2, 40), st.integers(1, 8), st.integers(1, 3), st.integers(0, 10**6), st.floats(1e-3, 10.0)
)


def made(rows: int, width: int, outputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    patches = torch.cat([draw(rows, width), torch.ones(rows, 1, dtype=torch.float64)], 1)
    return patches, draw(rows, outputs), draw(width + 1, outputs)


def solved(patches: Tensor, targets: Tensor, start: Tensor, ridge: float) -> Tensor:
    equations = NormalEquations()
    equations.add(patches, targets)
    return equations.solve(ridge, start)


def error(patches: Tensor, targets: Tensor, weights: Tensor) -> float:
    return float((patches @ weights - targets).square().sum())


@given(problems)
@settings(max_examples=60, deadline=None)
def test_solution_never_fits_the_summed_rows_worse_than_the_start(problem):
    *shape, ridge = problem
    patches, targets, start = made(*shape)
    found = solved(patches, targets, start, ridge)
    assert error(patches, targets, found) <= error(patches, targets, start) * (1 + 1e-9)


@given(problems)
@settings(max_examples=60, deadline=None)
def test_smaller_ridge_fits_better_and_goes_further_from_the_start(problem):
    *shape, ridge = problem
    patches, targets, start = made(*shape)
    near, far = (solved(patches, targets, start, each) for each in (2 * ridge, ridge))
    assert error(patches, targets, far) <= error(patches, targets, near) * (1 + 1e-6) + 1e-9
    assert float((far - start)[:-1].norm()) >= float((near - start)[:-1].norm()) * (1 - 1e-6) - 1e-9


@given(problems, st.integers(1, 39))
@settings(max_examples=60, deadline=None)
def test_batches_and_the_order_of_rows_do_not_matter(problem, cut):
    *shape, ridge = problem
    patches, targets, start = made(*shape)
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(cut))
    equations = NormalEquations()
    for part in (order[:cut], order[cut:]):
        if len(part):
            equations.add(patches[part], targets[part])
    torch.testing.assert_close(
        equations.solve(ridge, start), solved(patches, targets, start, ridge), rtol=1e-7, atol=1e-7
    )
