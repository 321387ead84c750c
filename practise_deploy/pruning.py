"""From a network to a smaller one: what every block costs, what losing it costs, which ones go, and the recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch

from practise_backends.terms import Interval, LatencyTable
from practise_deploy.finetune import drop_only, finetune, schedule_for
from practise_deploy.kitting import Kitting
from practise_deploy.latency_table import Wanted, check_table, read_table
from practise_deploy.model.compute import exact, pick_device
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import exits_in, pair_of
from practise_deploy.model.schedule import Schedule
from practise_deploy.model.surgery import drop_blocks, load_weights
from practise_deploy.planning.choose import choose_blocks, out_of_reach
from practise_deploy.planning.interactions import Floats
from practise_deploy.planning.latency import measure_block_latency, measure_reduction
from practise_deploy.planning.recoverability import measure_recoverability
from practise_deploy.planning.scoring import measure_by_adaptors
from practise_deploy.planning.sequence import errors_without, in_another_basis, recover
from practise_deploy.planning.sets import choose_set
from practise_deploy.store import arrays_digest, digest, to_json
from practise_deploy.terms import Block, Plan, Recoverabilities, Student


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
            with (
                self.screen("Measuring how well the network recovers from losing each block") as progress,
                exact(seed),
            ):
                if steps is None:
                    return measure_recoverability(lesson, candidates, progress)
                schedule = Schedule(steps=steps, batch_size=self.settings.batch_size, seed=seed, dtype=self.dtype)
                return measure_by_adaptors(lesson, candidates, schedule, progress)

        return self.run.step("recoverability", Recoverabilities, key, compute)

    # Take the set whose loss is cheapest to recover within the budget, then recover.

    @cached_property
    def plan(self) -> Plan:
        """Which blocks go; the chosen network was measured."""
        budget, losses = self.settings.budget, self.recoverability
        key = {
            **self.device_key,
            **self.measuring_key,
            **self.learning_key,
            "sessions": self.settings.sessions,
            "budget": digest(budget.reduce_percent, budget.target_ms, budget.drop),
            "latency table": digest(to_json(self.latency)),
            "recoverability": digest(to_json(losses), arrays_digest(losses.interactions)),
        }

        def measure(names: tuple[str, ...]) -> Interval:
            with self.screen(f"Measuring the network without {', '.join(names)}") as progress:
                return measure_reduction(self.cuttable, self.named(names), self.stand, progress)

        def verify(names: tuple[str, ...]) -> Floats:
            with self.screen(f"Refitting without {', '.join(names)}") as progress, exact(self.settings.seed):
                return errors_without(self.lesson, self.named(names), progress)

        def compute() -> Plan:
            measured = measure if self._wanted.is_at_hand(self.latency) else None
            if self.is_paper:
                return choose_blocks(self.latency, losses.of, budget, measured)
            return choose_set(self.latency, losses, budget, measured, verify)

        plan = self.run.step("plan", Plan, key, compute)
        self.run.write("latency.json", to_json(self.latency))
        self.run.write("plan.json", to_json(plan))
        return plan

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

        Raises: InputError where it does not.
        """
        plan = self.plan
        if plan.reached and plan.dropped:
            return plan
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
