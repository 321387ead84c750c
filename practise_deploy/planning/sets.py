"""The search for the set of blocks to drop: least predicted error within the budget, then verified, then measured.

Losses of blocks interact, so the best set does not consist of the best blocks (section 3.2 of the paper adds losses
up). The search predicts errors, verifies the best predictions after recovery, and measures the best of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from practise_backends.terms import LatencyTable
from practise_deploy.planning.choose import (
    Measure,
    assumed_percent,
    checked_target,
    empty_plan,
    kept_blocks,
    noise_notes,
    plan_of,
    predicted_percent,
    scores_of,
    try_blocks,
)
from practise_deploy.planning.interactions import Blocks, Candidates, Floats, best_sets, candidates_of
from practise_deploy.planning.stability import TOP, log_ratios, mean_error, selection_frequencies
from practise_deploy.terms import Attempt, Budget, Considered, Loss, Plan, Recoverabilities


@dataclass(frozen=True, slots=True, eq=False)
class Verified:
    """A set after recovery in closed form, on images that the fit did not use.

    errors: of the features over their variance, float64[images]. loss: None if the network is no classifier.
    """

    errors: Floats
    loss: Loss | None


Verify = Callable[[Blocks], Verified]

TOP_AGAIN, FURTHER = 2, 2  # sets to verify in later rounds of the search; further sets after TOP in the first round
MAX_CHEAPER_TRIES = 3
NEAR = 2
_FAR = 2.0  # standard deviations
_LEAST_STEP = 0.01  # share of the target, after the first miss; doubled after each further one


def choose_set(
    latency: LatencyTable,
    recoverability: Recoverabilities,
    budget: Budget,
    measure: Measure | None,
    verify: Verify | None,
) -> Plan:
    """The set of least error whose measured reduction meets the budget.

    measure: as for `choose_blocks`. verify: judges a recovered set on validation images, the same for all
    sets; None if the prediction must do. A measurement that misses the target raises the requested prediction, one that
    exceeds it lowers it. `reached` is False if all blocks together fall short; the plan then holds them all.
    Raises: InputError where more blocks are requested than can be ranked, or the target is met already.
    """
    scores = scores_of(latency, recoverability.of)
    if not scores:
        return empty_plan(latency, recoverability.of, budget)
    target = checked_target(budget, latency, len(scores))
    candidates = candidates_of(latency, recoverability, measured=measure is not None)
    search = _Search(candidates, latency, target, measure, verify)
    search.meet(budget if target is None else Budget(reduce_percent=target))
    if target is not None and measure is not None:
        search.try_less()
    plan = plan_of(latency, budget, scores, tuple(search.attempts))
    search.verify_chosen()
    shares, share = selection_frequencies(search.candidates, search.budget, plan.dropped, search.errors)
    return replace(
        plan,
        kept=kept_blocks(latency, recoverability.of, plan, {}),
        selection_frequency={name: shares[name] for name in scores},
        set_frequency=share,
        considered=search.considered,
        notes=noise_notes(latency, plan.dropped),
    )


def neighbouring_sets(
    latency: LatencyTable, recoverability: Recoverabilities, plan: Plan, reduction_percent: float | None = None
) -> list[Blocks]:
    """The plan's set and those of least predicted error that save up to two blocks' worth less or more, and half.

    For a number of blocks: those of up to two blocks fewer or more, and half as many.
    reduction_percent: of a required speed-up, included too. Sorted by ascending predicted saving.
    """
    search = _of_reductions if plan.budget.drop is None else _of_sizes
    neighbours = set(search(candidates_of(latency, recoverability), latency, plan, reduction_percent))
    return sorted(neighbours, key=lambda blocks: (predicted_percent(blocks, latency).estimate, len(blocks), blocks))


def _of_sizes(
    candidates: Candidates, latency: LatencyTable, plan: Plan, reduction_percent: float | None
) -> list[Blocks]:
    chosen, total = len(plan.dropped), len(candidates.names)

    def best(size: int) -> Blocks:
        return plan.dropped if size == chosen else best_sets(candidates, Budget(drop=size), 1)[0]

    sizes = {*range(chosen - NEAR, chosen + NEAR + 1), chosen // 2}
    if reduction_percent is not None:
        enough = (n for n in range(1, total) if predicted_percent(best(n), latency).low >= reduction_percent)
        sizes.add(next(enough, total))
    return [best(size) for size in sorted(sizes) if 1 <= size <= total]


def _of_reductions(
    candidates: Candidates, latency: LatencyTable, plan: Plan, reduction_percent: float | None
) -> list[Blocks]:
    chosen = predicted_percent(plan.dropped, latency).low
    block = chosen / len(plan.dropped)
    steps = [chosen + step * block for step in range(-NEAR, NEAR + 1) if step]
    reductions = [*steps, chosen / 2, *([] if reduction_percent is None else [reduction_percent])]
    alternatives = [
        best_sets(candidates, Budget(reduce_percent=reduction), 1) for reduction in reductions if reduction > 0
    ]
    return [plan.dropped, *(blocks for sets in alternatives for blocks in sets)]


class _Search:
    """The search for one target, with a cache of all verified and measured sets."""

    def __init__(
        self,
        candidates: Candidates,
        latency: LatencyTable,
        target: float | None,
        measure: Measure | None,
        verify: Verify | None,
    ) -> None:
        self.candidates = candidates
        self.latency, self.target = latency, target
        self.measure, self.verify = measure, verify
        self.budget = Budget()
        self.attempts: list[Attempt] = []
        self.verified: dict[Blocks, Verified] = {}
        self._predicted: dict[Blocks, float] = {}

    def meet(self, budget: Budget) -> None:
        """Measure the set of best prediction, and raise the requested prediction until the target is met."""
        while True:
            self.budget = budget
            self._try((self._best(TOP_AGAIN) if self.attempts else self._best(TOP, FURTHER)) or self._all())
            last = self.attempts[-1]
            if last.met or last.dropped == self.candidates.names:
                return
            step = (self.target or 0.0) * _LEAST_STEP * 2 ** (len(self.attempts) - 1)
            budget = Budget(reduce_percent=max(self._to_predict(last), self._assumed(last.dropped) + step))

    def try_less(self) -> None:
        """Try sets of less error if more was saved than predicted; the chosen one stays the last attempt.

        After a set that misses, try sets between it and the chosen one.
        """
        target_percent = self._to_predict(self.attempts[-1])
        for _ in range(MAX_CHEAPER_TRIES):
            chosen, budget = self.attempts[-1], self.budget
            if not chosen.met:
                return
            self.budget = Budget(reduce_percent=target_percent)
            less = self._best(TOP_AGAIN, below=self._predicted[chosen.dropped])
            if less is None or self._error(less) >= self._error(chosen.dropped):
                self.budget = budget
                return
            self._try(less)
            tried = self.attempts[-1]
            target_percent = self._to_predict(tried)
            if not tried.met:
                self.attempts[-2:] = [tried, chosen]
                self.budget = budget

    def verify_chosen(self) -> None:
        """Verify the chosen set, even if no other competed with it."""
        if self.attempts[-1].dropped:
            self._error(self.attempts[-1].dropped)

    @property
    def errors(self) -> dict[Blocks, Floats]:
        """Errors of the verified sets. Shapes: each [images]."""
        return {blocks: verified.errors for blocks, verified in self.verified.items()}

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every evaluated set, the chosen one first, then by predicted error."""
        measured = {attempt.dropped: attempt.measured_percent for attempt in self.attempts}
        chosen = self.attempts[-1].dropped
        order = sorted(self._predicted, key=lambda blocks: (blocks != chosen, self._predicted[blocks], blocks))
        return tuple(
            Considered(
                dropped=blocks,
                predicted_error=self._predicted[blocks],
                verified_error=self._verified_errors().get(blocks),
                predicted_percent=predicted_percent(blocks, self.latency),
                measured_percent=measured.get(blocks),
                reason=self._why_not(blocks),
                loss=self.verified[blocks].loss if blocks in self.verified else None,
            )
            for blocks in order
        )

    def _best(self, count: int, further: int = 0, *, below: float = math.inf) -> Blocks | None:
        """The set of least error among those of least predicted error that meet the budget and were not tried yet.

        It verifies `count` sets, and up to `further` more while they might still win, given the ratios of verified to
        predicted errors so far.
        """
        tried = {attempt.dropped for attempt in self.attempts}
        ranked = best_sets(self.candidates, self.budget, count + further + len(tried))
        fresh = [blocks for blocks in ranked if blocks not in tried and self._predict(blocks) < below]
        if len(fresh) < 2 or self.verify is None:
            return next(iter(fresh), None)
        best = min(fresh[:count], key=self._error)
        for blocks in fresh[count : count + further]:
            if self._predict(blocks) * self._least_ratio() > self._error(best):
                break
            best = min(best, blocks, key=self._error)
        return best

    def _least_ratio(self) -> float:
        """A low quantile of the ratio of verified to predicted error."""
        typical, spread = log_ratios(self.candidates, self.errors)
        return math.exp(typical - _FAR * spread)

    def _all(self) -> Blocks:
        """All blocks: the last resort if no set is predicted to meet the budget."""
        blocks = self.candidates.names
        self.budget = Budget(reduce_percent=self._assumed(blocks))
        return blocks

    def _assumed(self, blocks: Blocks) -> float:
        return assumed_percent(blocks, self.latency, measured=self.candidates.measured)

    def _predict(self, blocks: Blocks) -> float:
        return self.candidates.error_of(blocks)

    def _error(self, blocks: Blocks) -> float:
        """The verified error if possible, else the predicted one; the plan lists the set as considered."""
        self._predicted[blocks] = self._predict(blocks)
        if self.verify is None:
            return self._predicted[blocks]
        if blocks not in self.verified:
            self.verified[blocks] = self.verify(blocks)
        return mean_error(self.verified[blocks].errors)

    def _try(self, blocks: Blocks) -> None:
        self._predicted[blocks] = self._predict(blocks)
        self.attempts.append(try_blocks(blocks, self.latency, self.target, self.measure))

    def _to_predict(self, attempt: Attempt) -> float:
        """The prediction that meets the target if its measurement deviates as much as this attempt's."""
        measured = attempt.measured_percent or attempt.predicted_percent
        if measured.estimate <= 0:
            return math.inf
        to_spare = measured.estimate - attempt.lower_bound_percent
        return self._assumed(attempt.dropped) * ((self.target or 0.0) + to_spare) / measured.estimate

    def _verified_errors(self) -> dict[Blocks, float]:
        return {blocks: mean_error(errors) for blocks, errors in self.errors.items()}

    def _why_not(self, blocks: Blocks) -> str:
        chosen = self.attempts[-1].dropped
        if blocks == chosen:
            return ""
        tried = {attempt.dropped: attempt for attempt in self.attempts}
        if blocks in tried:
            return (
                "meets the target, as a set of less error does too"
                if tried[blocks].met
                else f"measured, it misses the target: {tried[blocks].lower_bound_percent:.1f}% is sure"
            )
        source, errors = (
            ("predicted", self._predicted) if self.verify is None else ("verified", self._verified_errors())
        )
        target_percent = self.budget.reduce_percent
        if blocks in errors and errors[blocks] >= errors.get(chosen, math.inf):
            return f"its {source} error is no lower"
        if target_percent is not None and self._assumed(blocks) < target_percent:
            return f"saves too little: after the measurements, {target_percent:.1f}% must be predicted"
        return "its predicted error is no lower"
