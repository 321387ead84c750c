"""The story: start reading here.

`Build.release` tells it in the paper's order. Every chapter is a step of the run folder: computed once for
the same inputs, kept, and pulled in by whatever needs it, so that a single stage can be asked for alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from practise_backends.compare import NEW, compare
from practise_backends.intervals import ORIGINAL
from practise_backends.ort import OrtBackend
from practise_backends.terms import Comparison, Interval, LatencyTable, Patience, Throughput
from practise_backends.throughput import measure_throughput
from practise_deploy.errors import InputError
from practise_deploy.finetune import drop_only, finetune, schedule_for
from practise_deploy.ground import MODEL, ORIGINAL_MODEL, Ground
from practise_deploy.latency_table import Wanted, check_table, read_table
from practise_deploy.model.compute import exact, pick_device
from practise_deploy.model.lesson import Lesson
from practise_deploy.model.pair import Pair, exits_in, feature_in
from practise_deploy.model.schedule import Schedule
from practise_deploy.model.surgery import drop_blocks, load_weights
from practise_deploy.planning.adaptors import measure_by_adaptors
from practise_deploy.planning.choose import choose_blocks, count_reaching, out_of_reach
from practise_deploy.planning.latency import (
    measure_block_latency,
    measure_reduction,
    measure_reductions,
)
from practise_deploy.planning.recoverability import measure_recoverability
from practise_deploy.planning.sequence import error_without, recover
from practise_deploy.planning.sets import choose_set, neighbouring_sets
from practise_deploy.results import write_results
from practise_deploy.shipping.batching import with_any_batch
from practise_deploy.shipping.frontier import (
    Neighbour,
    judge_neighbours,
    judged_part,
    neighbours_of,
    released_point,
)
from practise_deploy.shipping.gate import Demands, judge_gate
from practise_deploy.shipping.verdict import judge
from practise_deploy.shipping.verify import Forms, engine_form, torch_form, verify
from practise_deploy.store import Key, arrays_digest, digest, to_json
from practise_deploy.terms import (
    Block,
    Frontier,
    Gate,
    Plan,
    Recoverabilities,
    Release,
    Shipped,
    Student,
    Throughputs,
    Verification,
)

QUICK = Patience(budget_s=6.0, warmup_s=0.5, min_rounds=10, enough_percent=1.0, sessions=1)
_NO_FRONTIER = Frontier(points=(), fit_images=0, images=0)


class Build(Ground):
    """One build over one run folder; each property is a stage, computed when it is first asked for."""

    def check(self) -> None:
        """Find what is missing or broken before anything is measured or written.

        Raises: InputError, EnvironmentProblem.
        """
        if not self.network.learns:
            raise InputError(
                f"{self.settings.network} is a torch.export file: it can be inspected, measured and exported, not replanned",
                remedy="give the network as torchvision:NAME, timm:NAME or FILE.py:FUNCTION",
            )
        pick_device(self.settings.compute)
        assert self.candidates and self.backend and self.images
        if self.settings.max_drop is not None and not self.images.facts.labelled:
            raise InputError(
                "--max-drop cannot be judged: the held-out images carry no labels",
                remedy="give labelled images with --eval, or leave the demand out",
            )
        if self.settings.latency_table is not None:
            assert self.latency

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
            backend=self.backend.name,
            conditions=self.conditions,
            structure_sha256=self.structure_sha256,
            here=self.backend.device().fingerprint,
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
                schedule = Schedule(steps=steps, batch_size=self.settings.batch_size, seed=seed, dtype=self.precision)
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

        def verify(names: tuple[str, ...]) -> float:
            with self.screen(f"Refitting without {', '.join(names)}") as progress, exact(self.settings.seed):
                return error_without(self.lesson.few, self.named(names), progress)

        def compute() -> Plan:
            measured = measure if self._wanted.is_at_hand(self.latency) else None
            if self._is_paper:
                return choose_blocks(self.latency, losses.of, budget, measured)
            return choose_set(self.latency, losses, budget, measured, verify)

        plan = self.run.step("plan", Plan, key, compute)
        self.run.write("latency.json", to_json(self.latency))
        self.run.write("plan.json", to_json(plan))
        return plan

    @cached_property
    def recovered(self) -> Student:
        """The pruned network after the closed-form refit (recipe paper: after the plain drop)."""
        plan = self._reached_plan
        key = {**self.learning_key, "dropped blocks": plan.dropped}
        title = "Dropping the blocks" if self._is_paper else "Refitting the network in closed form"
        return self.run.step("recover", Student, key, lambda: self._recovered(title, plan.dropped, self.lesson))

    @cached_property
    def finetuned(self) -> Student:
        """The student after feature mimicking."""
        schedule = schedule_for(self.settings, self.network.input_shape[-1], self.precision)
        key = {
            **self.learning_key,
            **self.descent_key,
            "starting weights": arrays_digest(self.recovered.weights),
            "schedule": repr(schedule),
        }

        def compute() -> Student:
            student, feature = self._student(self.recovered), self.network.facts.feature
            own = feature_in(student, feature, self._dropped)
            device = pick_device(self.settings.compute)
            exits = exits_in(student, self.blocks, self._dropped, feature)
            pair = Pair(student, self.network.traced, own, feature, device, exits)
            partial = self.run.partial(f"finetune.{digest(key)[:12]}")
            with self.screen("Finetuning by feature mimicking") as progress, exact(self.settings.seed):
                return finetune(pair, self.recovered, self.images.fit, schedule, progress, partial)

        return self.run.step("finetune", Student, key, compute)

    # Ship it, and prove it.

    @cached_property
    def shipped(self) -> Shipped:
        """model.onnx, and original.onnx beside it; a torch.export file has the latter alone."""
        original = self.original
        if not self.network.learns:
            return original
        return self.export(
            "export", MODEL, arrays_digest(self.finetuned.weights), lambda: self._student(self.finetuned)
        )

    @cached_property
    def verification(self) -> Verification:
        """The chain teacher -> student -> ONNX -> engine on held-out images."""
        key = {
            **self.device_key,
            "original weights": self.network.facts.sha256,
            "model": self.shipped.sha256,
            "held-out images": self.images.held_out.digest(),
            "preprocessing": repr(self.network.facts.preprocessing),
        }

        def compute() -> Verification:
            plain, path = OrtBackend(), self.run.folder / MODEL
            artifact = self.backend.compile(path, self.conditions)
            unoptimised = plain.open(plain.compile(path, self.conditions), self.conditions, optimise=False)
            forms = Forms(
                teacher=torch_form(self.network.traced),
                student=torch_form(self._student(self.finetuned)),
                onnx=engine_form(unoptimised, self.settings.batch),
                engine=engine_form(self.backend.open(artifact, self.conditions), self.settings.batch),
            )
            with self.screen("Verifying on held-out images") as progress, exact(self.settings.seed):
                return verify(forms, self.images.held_out, progress)

        return self.run.step("verify", Verification, key, compute)

    @cached_property
    def bench(self) -> Comparison:
        """The new model against the original one."""
        key = {
            **self._files_key,
            **self.measuring_key,
            "sessions": self.settings.sessions,
        }

        def compute() -> Comparison:
            before, after = self.run.folder / ORIGINAL_MODEL, self.run.folder / MODEL
            with self.screen("Measuring the new model against the original") as progress:
                return compare(before, after, self.stand, progress)

        return self.run.step("bench", Comparison, key, compute)

    @cached_property
    def throughput(self) -> tuple[Throughput, ...]:
        """Images a second of both models, over batches and numbers of threads."""
        batches, threads = self.settings.throughput_points
        key = {**self._files_key, "batches": batches, "threads": threads}

        def compute() -> Throughputs:
            names = {ORIGINAL: ORIGINAL_MODEL, NEW: MODEL}
            with TemporaryDirectory(prefix="practise-") as folder, self.screen("Measuring throughput") as progress:
                files = {key: with_any_batch(self.run.folder / name, Path(folder)) for key, name in names.items()}
                stand = replace(self.stand, patience=QUICK)
                return Throughputs(of=measure_throughput(files, stand, batches, threads, progress))

        return self.run.step("throughput", Throughputs, key, compute).of

    @cached_property
    def frontier(self) -> Frontier:
        """What fewer and more dropped blocks would have given; the release itself is its last point."""
        wanted = self._neighbours if self.settings.frontier else []
        key = {
            **self.device_key,
            **self.learning_key,
            "sets": wanted,
            "dropped blocks": self.plan.dropped,
            "held-out images": self.images.held_out.digest(),
            **self.measuring_key,
        }
        found = self.run.step("frontier", Frontier, key, lambda: self._judged(wanted)) if wanted else _NO_FRONTIER
        released = released_point(self.plan, self.bench, self.verification)
        return replace(found, points=(*found.points, released))

    def _judged(self, wanted: list[tuple[str, ...]]) -> Frontier:
        images = judged_part(self.images.held_out, self.settings.seed)
        lesson = replace(self.lesson.few, in_turns=False)  # five networks are recovered here, for a look
        with self.screen("Measuring neighbouring sets of blocks") as progress:
            saved = measure_reductions(self.cuttable, [self.named(names) for names in wanted], self.stand, progress)
        neighbours = []
        for names, reduction in zip(wanted, saved, strict=True):
            state = self._recovered(f"Recovering without {', '.join(names)}", names, lesson)
            form = torch_form(self._student(state, self.named(names)))
            recovery = "none" if self._is_paper else "closed form"
            neighbours.append(Neighbour(dropped=names, recovery=recovery, reduction_percent=reduction, form=form))
        with self.screen("Judging neighbouring sets of blocks") as progress, exact(self.settings.seed):
            teacher_form = torch_form(self.network.traced)
            points = judge_neighbours(teacher_form, neighbours, self.plan.dropped, images, progress)
        return Frontier(points=points, fit_images=len(lesson.images), images=len(images))

    @property
    def gate(self) -> Gate | None:
        """The demands on the release; None where there are none."""
        demands = Demands(min_speedup=self.settings.min_speedup, max_drop=self.settings.max_drop)
        return judge_gate(demands, self.plan, self.bench, self.verification, self.frontier)

    @cached_property
    def release(self) -> Release:
        """Drop the blocks whose loss is cheapest to recover per millisecond saved; ship the rest, and prove it."""
        self.check()
        release = Release(
            network=self.network.facts,
            images=self.images.facts,
            recipe=self.settings.recipe,
            blocks=self.blocks,
            latency=self.latency,
            recoverability=self.recoverability.of,
            plan=self.plan,
            recovered=self.recovered,
            finetuned=self.finetuned,
            shipped=self.shipped,
            verification=self.verification,
            bench=self.bench,
            throughput=self.throughput,
            frontier=self.frontier,
            gate=self.gate,
            speedup=self.bench.speedup,
            verdict=judge(self.plan, self.verification, self.bench, self.gate),
            seconds=dict(self.run.seconds),
            command=self.command,
        )
        digests = {"fit": self.images.fit.digest(), "held_out": self.images.held_out.digest()}
        write_results(self.run, release, self.settings, digests)
        return release

    # What the chapters share.

    @property
    def _reached_plan(self) -> Plan:
        plan = self.plan
        if plan.reached and plan.dropped:
            return plan
        error = out_of_reach(plan)
        if self.settings.min_speedup and self.settings.asks_for_nothing_else:
            error.remedy += f", or for less than --min-speedup {self.settings.min_speedup:g}, which set this target"
        raise error

    @property
    def _dropped(self) -> list[Block]:
        return self.named(self.plan.dropped)

    @property
    def _is_paper(self) -> bool:
        return self.settings.recipe == "paper"

    @property
    def _neighbours(self) -> list[tuple[str, ...]]:
        """Sets around the plan's, and what --min-speedup calls for by the table."""
        plan, asked = self._reached_plan, self.settings.min_speedup
        needed = None if asked is None else 100 * (1 - 1 / asked)
        if self._is_paper:
            return neighbours_of(plan, None if needed is None else count_reaching(plan, self.latency, needed))
        return neighbouring_sets(self.latency, self.recoverability, plan, needed)

    @property
    def _files_key(self) -> Key:
        """What a measurement of both models depends on."""
        return {**self.device_key, "model": self.shipped.sha256, "original": self.original.sha256}

    def _recovered(self, title: str, names: tuple[str, ...], lesson: Lesson) -> Student:
        """The network without these blocks, recovered in closed form (recipe paper: merely without them)."""
        blocks = self.named(names)
        with self.screen(title) as progress, exact(self.settings.seed):
            return drop_only(lesson, blocks) if self._is_paper else recover(lesson, blocks, progress)

    def _student(self, state: Student, dropped: Sequence[Block] | None = None) -> torch.fx.GraphModule:
        student = drop_blocks(self.network.traced, self._dropped if dropped is None else dropped)
        load_weights(student, state.weights)
        return student.eval()
