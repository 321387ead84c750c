"""Residual units are found, dropped and exported in whatever form they are written, and what is left is the rest of the sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from practise_deploy.network.graph.onnx_graph import with_splices, without_blocks
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from samples.residuals import (
    FORMS,
    ONE,
    SHAPE,
    TWO,
    Meeting,
    droppable_of,
    onnx_output,
    outputs,
    units,
    without_branches,
)

torch.set_num_threads(1)  # networks this small run slower on two


@pytest.mark.parametrize("form", FORMS)
def test_every_branch_is_a_unit(form: str) -> None:
    traced, leaves = trace(units(form, form), SHAPE)
    blocks = find_blocks(traced, SHAPE)
    assert [block.reason for block in blocks] == [""] * 2 * (1 if form in ONE else 2) and leaves == ()


@given(st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3), st.data())
@settings(max_examples=40, deadline=None)
def test_dropping_units_leaves_what_the_network_computes_with_zeros_for_their_branches(forms, data) -> None:
    module = units(*forms)
    traced, _ = trace(module, SHAPE)
    blocks = droppable_of(find_blocks(traced, SHAPE))
    dropped = data.draw(st.lists(st.sampled_from(blocks), unique_by=lambda block: block.exit))
    student = drop_blocks(traced, dropped)
    torch.testing.assert_close(
        outputs(student), outputs(without_branches(module, traced, student)), rtol=1e-4, atol=1e-5
    )
    lost = sum(weight.numel() for weight in traced.parameters()) - sum(
        weight.numel() for weight in student.parameters()
    )
    shared = 12 * sum(form.startswith("two: shared") for form in forms)  # a norm of two branches goes with the second
    assert 0 <= lost - sum(block.parameters for block in dropped) <= shared


@pytest.mark.parametrize("first", range(0, len(FORMS), 8))
def test_dropping_in_onnx_equals_dropping_in_torch(first: int) -> None:
    traced, _ = trace(units(*list(FORMS)[first : first + 8]), SHAPE)
    blocks = droppable_of(find_blocks(traced, SHAPE))
    model = with_splices(traced, blocks, SHAPE)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    for dropped in ([], blocks, *([block] for block in blocks)):
        with torch.no_grad():
            expected = drop_blocks(traced, dropped)(x).numpy()
        np.testing.assert_allclose(
            onnx_output(without_blocks(model, dropped), x.numpy()), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("form, scale", [("scaled skip", 0.5), ("negative skip", -1.0), ("scaled sum", 0.5**0.5)])
def test_stream_keeps_its_scale_without_a_unit(form: str, scale: float) -> None:
    module = units(form)
    student = drop_blocks(traced := trace(module, SHAPE)[0], find_blocks(traced, SHAPE))
    module.blocks = torch.nn.Identity()
    with torch.no_grad():
        module.stem.weight.mul_(scale), module.stem.bias.mul_(scale)
    torch.testing.assert_close(outputs(student), outputs(module))


NEAR_MISSES: dict[str, tuple[Meeting, str]] = {
    "softmax": (
        lambda u, x: (w := u.weight.softmax(0))[0] * x + w[1] * u.f(x),
        "its terms are weighted by softmax: its input would stay multiplied by its own weight without the rest",
    ),
    "normalised": (
        lambda u, x: (w := u.weight.relu() / (u.weight.relu().sum() + 1e-4))[0] * x + w[1] * u.f(x),
        "its terms are weighted by truediv: its input would stay multiplied by its own weight without the rest",
    ),
    "sigmoid": (
        lambda u, x: u.gain.sigmoid() * x + (1 - u.gain.sigmoid()) * u.f(x),
        "its terms are weighted by sigmoid: its input would stay multiplied by its own weight without the rest",
    ),
    "gate": (
        lambda u, x: (t := u.norm(x).sigmoid()) * u.f(x) + (1 - t) * x,
        "its input is multiplied by a gate, and would stay so without the rest",
    ),
    "negated": (lambda u, x: u.f(x) - x, "it subtracts its input, whose sign would change without the rest"),
    "negated half": (lambda u, x: u.f(x) - x / 2, "it subtracts its input, whose sign would change without the rest"),
    "stacked": (
        lambda u, x: torch.stack([x, u.f(x)]).sum(0),
        "its branches are stacked and then summed: x + f(x) would do",
    ),
    "lerp": (lambda u, x: x.lerp(u.f(x), 0.3), "its terms meet in lerp, not in a sum"),
    "addcmul": (lambda u, x: torch.addcmul(x, u.f(x), u.gamma), "its terms meet in addcmul, not in a sum"),
    "product": (lambda u, x: x * u.f(x).sigmoid(), "its terms meet in mul, not in a sum"),
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_what_would_not_do_without_its_branch_is_listed_with_the_reason(name: str) -> None:
    meeting, reason = NEAR_MISSES[name]
    blocks = find_blocks(trace(units(meeting, meeting), SHAPE)[0], SHAPE)
    assert [(block.name, block.droppable, block.reason) for block in blocks] == [
        (f"blocks.{number}", False, reason) for number in range(2)
    ]


def test_weights_that_only_the_branch_is_multiplied_by_do_no_harm() -> None:
    traced, _ = trace(units(lambda u, x: x + u.gain.sigmoid() * u.f(x)), SHAPE)
    assert [block.droppable for block in find_blocks(traced, SHAPE)] == [True]


def test_what_a_branch_makes_with_weights_for_others_keeps_it_and_what_it_makes_without_them_does_not() -> None:
    def gated(u, x):
        return (x + u.f(x * (gate := x.sigmoid()))) * gate

    def leaky(u, x):
        return (x + u.f(inner := u.g(x))) * inner

    assert [block.reason for block in find_blocks(trace(units(gated), SHAPE)[0], SHAPE)] == [""]
    (block,) = find_blocks(trace(units(leaky), SHAPE)[0], SHAPE)
    assert "is also used outside of it" in block.reason


def test_unit_around_one_that_stays_is_offered_itself() -> None:
    traced, _ = trace(units(lambda u, x: x + (u.f(y := u.norm(x)) - y)), SHAPE)
    inner, outer = find_blocks(traced, SHAPE)
    assert (inner.droppable, outer.droppable) == (False, True)


def test_both_forms_of_two_branches_give_the_same_units() -> None:
    counts = {name: len(droppable_of(find_blocks(trace(units(form), SHAPE)[0], SHAPE))) for name, form in TWO.items()}
    assert set(counts.values()) == {2}
