"""The story: start reading here.

`Build.release` tells it in the paper's order. Every chapter is a step of the run folder: computed once for
the same inputs, kept, and pulled in by whatever needs it, so that a single stage can be asked for alone.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property

from practise_backends.errors import Disturbed
from practise_backends.files import temporary_folder
from practise_backends.results.compare import NEW, compare
from practise_backends.results.throughput import measure_throughput
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.terms import Bench, Comparison, Patience, Throughput
from practise_deploy.compute import exact, pick_device
from practise_deploy.deployment.batching import with_any_batch
from practise_deploy.deployment.block_latency import measure_reductions
from practise_deploy.deployment.compile import compile_network, precision_problems
from practise_deploy.deployment.frontier import Neighbour, judge_neighbours, judged_part, neighbours_of, released_point
from practise_deploy.deployment.verify import Forms, engine_form, torch_form, verify
from practise_deploy.errors import InputError
from practise_deploy.outcome import Compiled, Frontier, Gate, Release, Shipped, Throughputs, Verdict, Verification
from practise_deploy.pipeline.context import MODEL, ORIGINAL_MODEL, require
from practise_deploy.pipeline.pruning import Pruning
from practise_deploy.pipeline.results import write_results
from practise_deploy.planning.choose import count_reaching
from practise_deploy.planning.gate import Demands, judge_gate
from practise_deploy.planning.remeasuring import MOST_AGAIN, is_undecided, last_of, longer, speedups_asked
from practise_deploy.planning.sets import neighbouring_sets
from practise_deploy.planning.verdict import judge
from practise_deploy.run import Key, arrays_digest

QUICK = Patience(budget_s=6.0, warmup_s=0.5, min_rounds=10, enough_percent=1.0, sessions=1)
_NO_FRONTIER = Frontier(points=(), fit_images=0, images=0)


class Build(Pruning):
    """One build over one run folder; each property is a stage, computed when it is first asked for."""

    def check(self, *, device: bool = True) -> None:
        """Find what is missing or broken before anything is measured or written.

        device: whether it must be at hand; else a latency table may stand for it.
        Raises: InputError, EnvironmentProblem.
        """
        if not self.network.learns:
            raise InputError(
                f"{self.settings.network} is a torch.export file: it can be inspected, measured and exported, not replanned",
                remedy="give the network as torchvision:NAME, timm:NAME or FILE.py:FUNCTION",
            )
        pick_device(self.settings.compute)
        require(self.candidates, self.images, self.backend if device else self.here or self.latency)
        if isinstance(self.settings.max_drop, float) and not self.classifies:
            raise InputError(
                f"--max-drop {self.settings.max_drop:g} cannot be judged: {self.settings.network} is no classifier, so no accuracy is known",
                remedy="leave the demand out, and judge the network by your own measure",
            )
        if self.settings.latency_table is not None:
            require(self.latency)

    # Ship it, and prove it.

    @cached_property
    def shipped(self) -> Shipped:
        """model.onnx, and original.onnx beside it; a torch.export file has the latter alone."""
        original = self.original
        if not self.network.learns:
            return original
        return self.export(
            "export", MODEL, arrays_digest(self.finetuned.weights), lambda: self.student_of(self.finetuned)
        )

    @cached_property
    def compiled(self) -> Compiled:
        """What the device runs, and the proof of its precision."""
        key = {**self.device_key, "model": self.shipped.sha256}

        def compute() -> Compiled:
            with self.screen("Compiling for the device") as progress:
                return compile_network(self.backend, self.run.folder / MODEL, self.conditions, progress)

        return self.run.step("compile", Compiled, key, compute, lambda one: {one.path: one.sha256, **one.beside})

    @cached_property
    def verification(self) -> Verification:
        """The chain teacher -> student -> ONNX -> engine on held-out images; without the engine where it cannot run here."""
        key = {
            **self.device_key,
            "original weights": self.network.facts.sha256,
            "model": self.shipped.sha256,
            "engine": self.compiled.sha256,
            "original": self.original.sha256,
            "held-out images": self.images.held_out.digest(),
            "preprocessing": repr(self.network.facts.preprocessing),
        }

        def compute() -> Verification:
            precision = self.settings.precision
            with ExitStack() as held:
                engine = None if self.settings.for_ else held.enter_context(closing(self.engine(self.compiled.path)))
                forms = Forms(
                    teacher=torch_form(self.network.traced),
                    student=torch_form(self.student_of(self.finetuned)),
                    onnx=self.onnx_form(MODEL),
                    engine=None if engine is None else engine_form(engine, self.settings.batch),
                    precision=precision,
                    original=None if precision == "fp32" else self.onnx_form(self.original.path),
                )
                progress = held.enter_context(self.screen("Verifying on held-out images"))
                held.enter_context(exact(self.settings.seed))
                return verify(forms, self.images.held_out, progress)

        return self.run.step("verify", Verification, key, compute)

    @cached_property
    def bench(self) -> Comparison | None:
        """The new model against the original one; None where the engine was built ahead for a device not at hand.

        It is measured again where it does not tell whether what was asked is met.
        """
        if self.settings.for_:
            return None
        asked = speedups_asked(self.plan, self.settings.min_speedup)
        stand = self.stand
        made = [self._compared("bench", stand)]
        try:
            while is_undecided(made[-1], asked) and len(made) <= MOST_AGAIN:
                stand = longer(stand, made[-1])
                made.append(self._compared(f"bench-again-{len(made)}", stand))
        except Disturbed as error:
            return last_of(made, error.message)
        return last_of(made)

    def _compared(self, step: str, stand: Bench) -> Comparison:
        """Both models in the same rounds."""
        key = {**self._files_key, **self.measuring_key, "sessions": stand.patience.sessions}

        def compute() -> Comparison:
            before, after = self.run.folder / ORIGINAL_MODEL, self.run.folder / MODEL
            with self.screen(
                f"Measuring the new model against the original{', for longer' * (step != 'bench')}"
            ) as progress:
                return compare(before, after, stand, progress)

        return self.run.step(step, Comparison, key, compute)

    @cached_property
    def throughput(self) -> tuple[Throughput, ...]:
        """Images a second of both models, over batches and numbers of threads."""
        if self.settings.for_:
            return ()
        batches, threads = self.settings.throughput_points
        key = {**self._files_key, **self.measuring_key, "batches": batches, "threads": threads}

        def compute() -> Throughputs:
            names = {ORIGINAL: ORIGINAL_MODEL, NEW: MODEL}
            with temporary_folder() as folder, self.screen("Measuring throughput") as progress:
                files = {key: with_any_batch(self.run.folder / name, folder) for key, name in names.items()}
                quick = replace(QUICK, keep_throttled=self.settings.keep_throttled)
                stand = replace(self.stand, patience=quick)
                return Throughputs(of=measure_throughput(files, stand, batches, threads, progress))

        return self.run.step("throughput", Throughputs, key, compute).of

    @cached_property
    def frontier(self) -> Frontier:
        """What fewer and more dropped blocks would have given; the release itself is its last point."""
        if self.bench is None:  # what its neighbours save could be measured there alone
            return _NO_FRONTIER
        wanted = self._neighbours if self.settings.frontier else []
        key = {
            **self.device_key,
            **self.learning_key,
            "sets": wanted,
            "dropped blocks": self.plan.dropped,
            "held-out images": self.images.held_out.digest(),
            **self.measuring_key,
            "sessions": self.settings.sessions,
        }
        found = self.run.step("frontier", Frontier, key, lambda: self._judged(wanted)) if wanted else _NO_FRONTIER
        released = released_point(self.plan, self.bench, self.verification)
        return replace(found, points=(*found.points, released))

    def _judged(self, wanted: list[tuple[str, ...]]) -> Frontier:
        images = judged_part(self.images.held_out, self.settings.seed)
        lesson = self.lesson.quick_look  # five networks are recovered here
        with self.screen("Measuring neighbouring sets of blocks") as progress:
            saved = measure_reductions(self.cuttable, [self.named(names) for names in wanted], self.stand, progress)
        neighbours = []
        for names, reduction in zip(wanted, saved, strict=True):
            state = self.recover_without(f"Recovering without {', '.join(names)}", names, lesson)
            form = torch_form(self.student_of(state, self.named(names)))
            recovery = "none" if self.is_paper else "closed form"
            neighbours.append(Neighbour(dropped=names, recovery=recovery, reduction_percent=reduction, form=form))
        with self.screen("Judging neighbouring sets of blocks") as progress, exact(self.settings.seed):
            teacher_form = torch_form(self.network.traced)
            points = judge_neighbours(teacher_form, neighbours, self.plan.dropped, images, progress)
        return Frontier(points=points, fit_images=len(lesson.images), images=len(images))

    @property
    def gate(self) -> Gate | None:
        """The demands on the release; None where there are none."""
        asked = self.settings
        demands = Demands(
            min_speedup=asked.min_speedup,
            max_drop=asked.most_points_lost,
            by_default=asked.max_drop is None,
            precision=asked.precision,
        )
        return judge_gate(demands, self.plan, self.bench, self.verification, self.frontier)

    @property
    def verdict(self) -> Verdict:
        """Whether the promise was kept."""
        precision = precision_problems(self.compiled, self.settings.min_precision_share)
        return judge(self.plan, self.verification, self.bench, self.gate, precision)

    @cached_property
    def release(self) -> Release:
        """Drop the blocks whose loss is cheapest to recover per millisecond saved; ship the rest, and prove it."""
        self.check()
        require(self.rehearsal)
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
            compiled=self.compiled,
            verification=self.verification,
            bench=self.bench,
            throughput=self.throughput,
            frontier=self.frontier,
            gate=self.gate,
            speedup=None if self.bench is None else self.bench.speedup,
            verdict=self.verdict,
            seconds=dict(self.run.seconds),
            command=self.command,
        )
        digests = {"fit": self.images.fit.digest(), "held_out": self.images.held_out.digest()}
        write_results(self.run, release, self.settings, digests)
        return release

    # What the chapters share.

    @property
    def _neighbours(self) -> list[tuple[str, ...]]:
        """Sets around the plan's, and what --min-speedup calls for by the table."""
        plan, asked = self.reached_plan, self.settings.min_speedup
        needed = None if asked is None else 100 * (1 - 1 / asked)
        if self.is_paper:
            return neighbours_of(plan, None if needed is None else count_reaching(plan, self.latency, needed))
        return neighbouring_sets(self.latency, self.recoverability, plan, needed)

    @property
    def _files_key(self) -> Key:
        """What a measurement of both models depends on."""
        return {**self.device_key, "model": self.shipped.sha256, "original": self.original.sha256}
