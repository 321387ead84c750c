"""From a network to a smaller one: what every block costs, what losing it costs, which ones go, and the recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch

from practise_backends.terms import Interval, LatencyTable
from practise_deploy.compute import exact, pick_device
from practise_deploy.deployment.block_latency import measure_block_latency, measure_reduction
from practise_deploy.deployment.latency_table import Wanted, check_table, read_table
from practise_deploy.errors import EnvironmentProblem
from practise_deploy.images.calibration import Lesson
from practise_deploy.network.surgery import drop_blocks, load_weights
from practise_deploy.pipeline.context import require
from practise_deploy.pipeline.kitting import Kitting
from practise_deploy.planning.choose import Measure, choose_blocks, out_of_reach, too_disturbed
from practise_deploy.planning.sets import Verified, choose_set
from practise_deploy.planning.within_drop import LEAST_LEFT, costs_too_much, find_within, reduced_plan
from practise_deploy.refit.recover import in_another_basis, recover, verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.refit.whole_recovery import is_doubtful, rescored
from practise_deploy.run import Key, arrays_digest, digest, to_json
from practise_deploy.terms import Block, Plan, Prospect, Recoverabilities, Student, WithinDrop
from practise_deploy.training.adaptor_scores import measure_by_adaptors
from practise_deploy.training.distillation import exits_in, pair_of
from practise_deploy.training.finetune import drop_only, finetune, schedule_for
from practise_deploy.training.schedule import Schedule


class Pruning(Kitting):
    """The stages that end with a recovered network; each property is one, computed when it is first asked for."""

    # What does each block cost on this device?

    @cached_property
    def latency(self) -> LatencyTable:
        """Savings of all droppable blocks: measured here, or read from --latency-table."""
        candidates = self.candidates
        given = self.settings.latency_table
        if given is not None:
            found = read_table(given)
            check_table(found, self._wanted, given)
            return found
        key = {**self.device_key, **self.measuring_key, "blocks": [block.name for block in candidates]}

        def compute() -> LatencyTable:
            with self.screen("Measuring what every block costs") as progress:
                found = measure_block_latency(
                    self.cuttable, self.settings.network, candidates, self.ranking_stand, progress
                )
                return replace(found, structure_sha256=self.structure_sha256)

        table = self.run.step("latency", LatencyTable, key, compute)
        self.run.write("latency.json", to_json(table))
        return table

    @property
    def _wanted(self) -> Wanted:
        return Wanted(
            blocks=tuple(block.name for block in self.candidates),
            input_shape=self.engine_shape,
            backend=self.settings.backend if self.here is None else self.here.name,
            conditions=self.conditions,
            structure_sha256=self.structure_sha256,
            here="" if self.here is None else self.here.device().fingerprint,
            ahead=self.settings.for_,
        )

    # What would losing it cost?

    @cached_property
    def recoverability(self) -> Recoverabilities:
        """R of every block whose saving can be told from none."""
        sure = {saving.block for saving in self.latency.savings if saving.distinguishable}
        candidates = [block for block in self.candidates if block.name in sure]
        steps = self.settings.score_iterations if self.settings.recipe == "paper" else None
        key = {**self.learning_key, "candidates": sorted(sure), "score_iterations": steps}
        if steps is not None:
            key |= self.descent_key

        def compute() -> Recoverabilities:
            lesson, seed = self.lesson, self.settings.seed
            title = "Measuring how well the network recovers from losing each block"
            with self.screen(title) as progress, exact(seed):
                if steps is not None:
                    schedule = Schedule(steps=steps, batch_size=self.settings.batch_size, seed=seed, dtype=self.dtype)
                    return measure_by_adaptors(lesson, candidates, schedule, progress)
                found = measure_recoverability(lesson, candidates, progress)
            if not any(is_doubtful(one) for one in found.of):
                return found
            with self.screen("Refitting everything behind blocks that one site misjudges") as progress, exact(seed):
                return rescored(lesson, candidates, found, progress)

        return self.run.step("recoverability", Recoverabilities, key, compute)

    # Take the set whose loss is cheapest to recover within the budget, then recover.

    @cached_property
    def plan(self) -> Plan:
        """Which blocks go; the chosen network was measured. With --best-within-drop a smaller set than asked may."""
        plan, within = self.asked_plan, self.within_drop
        if within is not None and within.best is not None and self.settings.best_within_drop:
            key = {**self._planning_key, "within": digest(to_json(within)), "asked": digest(to_json(plan))}
            reduced = self.run.step(
                "plan-within-drop",
                Plan,
                key,
                lambda: reduced_plan(plan, within, self.latency, self.recoverability, self._measure),
            )
            self.run.write("plan.json", to_json(reduced))
            return reduced
        return plan

    @cached_property
    def within_drop(self) -> WithinDrop | None:
        """What can be had within --max-drop, where the set that meets the target cannot be recovered so far."""
        plan, demand, finetuned = self.asked_plan, self.settings.most_points_lost, self.settings.iterations != 0
        hopeless = self.disturbed is not None and not self.settings.best_within_drop
        if demand is None or self.is_paper or not plan.dropped or hopeless:
            return None
        rule = {"demand": demand, "finetuned": finetuned, "left after finetuning": LEAST_LEFT}
        key = {**self.learning_key, "plan": digest(to_json(plan)), **rule}
        return self.run.step(
            "within-drop",
            Prospect,
            key,
            lambda: Prospect(
                of=find_within(self.latency, self.recoverability, plan, self._verify, demand, finetuned=finetuned)
            ),
        ).of

    @cached_property
    def disturbed(self) -> EnvironmentProblem | None:
        """Why the noise of the device, and not the network, is what misses the target; None where it is not."""
        return too_disturbed(self.asked_plan, self.latency)

    @cached_property
    def asked_plan(self) -> Plan:
        """The set of least error that meets the target."""
        require(self.rehearsal)
        budget, losses = self.settings.budget, self.recoverability
        key = {**self._planning_key, "budget": digest(budget.reduce_percent, budget.target_ms, budget.drop)}

        def compute() -> Plan:
            if self.is_paper:
                return choose_blocks(self.latency, losses.of, budget, self._measure)
            return choose_set(self.latency, losses, budget, self._measure, self._verify)

        plan = self.run.step("plan", Plan, key, compute)
        self.run.write("latency.json", to_json(self.latency))
        self.run.write("plan.json", to_json(plan))
        return plan

    @property
    def _planning_key(self) -> Key:
        """What a choice of blocks depends on besides the budget."""
        losses = self.recoverability
        return {
            **self.device_key,
            **self.measuring_key,
            **self.learning_key,
            "labels": self.images.fit.labels_digest(),
            "sessions": self.settings.sessions,
            "latency table": digest(to_json(self.latency)),
            "recoverability": digest(to_json(losses), arrays_digest(losses.interactions)),
        }

    @property
    def _measure(self) -> Measure | None:
        """Measures what a set saves; None where the device of the table is not at hand."""

        def measure(names: tuple[str, ...]) -> Interval:
            with self.screen(f"Measuring the network without {', '.join(names)}") as progress:
                return measure_reduction(self.cuttable, self.named(names), self.stand, progress)

        return measure if self._wanted.is_at_hand(self.latency) else None

    def _verify(self, names: tuple[str, ...]) -> Verified:
        """A set after its recovery in closed form, on images that the fit did not see."""
        with self.screen(f"Refitting without {', '.join(names)}") as progress, exact(self.settings.seed):
            return verified_without(self.lesson, self.named(names), progress)

    @cached_property
    def recovered(self) -> Student:
        """The pruned network after the closed-form refit (recipe paper: after the plain drop)."""
        plan = self.reached_plan
        key = {**self.learning_key, "dropped blocks": plan.dropped}
        title = "Dropping the blocks" if self.is_paper else "Refitting the network in closed form"
        return self.run.step("recover", Student, key, lambda: self.recover_without(title, plan.dropped, self.lesson))

    @cached_property
    def finetuned(self) -> Student:
        """The student after feature mimicking."""
        schedule = schedule_for(self.settings, self.network.input_shape[-1], self.dtype)
        key = {
            **self.learning_key,
            **self.descent_key,
            "starting weights": arrays_digest(self.recovered.weights),
            "schedule": repr(schedule),
        }

        def compute() -> Student:
            student, feature = self.student_of(self.recovered), self.network.facts.feature
            teacher, device = self.network.traced, pick_device(self.settings.compute)
            gone, otherwise = self.dropped_blocks, in_another_basis(student, self.recovered.choices)
            exits = exits_in(student, self.blocks, gone, feature, otherwise)
            pair = pair_of(student, teacher, feature, gone, exits=exits, device=device)
            partial = self.run.partial(f"finetune.{digest(key)[:12]}")
            with self.screen("Finetuning by feature mimicking") as progress, exact(self.settings.seed):
                return finetune(pair, self.recovered, self.images.fit, schedule, progress, partial)

        return self.run.step("finetune", Student, key, compute)

    # What the chapters share.

    @property
    def reached_plan(self) -> Plan:
        """The plan, where it meets the target.

        Raises: TargetOutOfReach where it does not, or costs more accuracy than is allowed; EnvironmentProblem where the device is too
        disturbed to tell.
        """
        plan, within = self.plan, self.within_drop
        if within is not None and plan.within_drop is None:
            raise costs_too_much(plan, within, by_default=self.settings.max_drop is None)
        if plan.reached and plan.dropped:
            return plan
        if self.disturbed is not None:
            raise self.disturbed
        error = out_of_reach(plan)
        if self.settings.min_speedup and self.settings.asks_for_nothing_else:
            error.remedy += f", or for less than --min-speedup {self.settings.min_speedup:g}, which set this target"
        raise error

    @property
    def dropped_blocks(self) -> list[Block]:
        """What the plan drops."""
        return self.named(self.plan.dropped)

    @property
    def is_paper(self) -> bool:
        """Whether the paper's recipe was asked for."""
        return self.settings.recipe == "paper"

    def recover_without(self, title: str, names: tuple[str, ...], lesson: Lesson) -> Student:
        """The network without these blocks, recovered in closed form (recipe paper: merely without them)."""
        blocks = self.named(names)
        with self.screen(title) as progress, exact(self.settings.seed):
            return drop_only(lesson, blocks) if self.is_paper else recover(lesson, blocks, progress)

    def student_of(self, state: Student, dropped: Sequence[Block] | None = None) -> torch.fx.GraphModule:
        """The pruned network with a stage's weights. dropped: the plan's blocks, where none are given."""
        student = drop_blocks(self.network.traced, self.dropped_blocks if dropped is None else dropped)
        load_weights(student, state.weights)
        return student.eval()
