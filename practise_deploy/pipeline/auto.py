"""A build whose precision may be chosen too: --precision auto, from all levers measured together to a point that keeps the promise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from practise_backends.choices import Precision
from practise_deploy.outcome import LeverPoint, Levers
from practise_deploy.pipeline.build import Build, require
from practise_deploy.pipeline.checks import check_levers
from practise_deploy.pipeline.levers import measure_levers, without_part
from practise_deploy.planning.levers import best_built, choose_point, growing_sets, next_point, no_point
from practise_deploy.planning.within_drop import LEAST_LEFT
from practise_deploy.run import to_json
from practise_deploy.settings import AUTO


@dataclass(frozen=True)
class AutoBuild(Build):
    """A build in one precision, or with --precision auto several, one of which is chosen.

    measured_levers    growing sets of blocks, recovered in closed form, in every precision
    planned            the fastest of them that may be within the allowed loss once it is finetuned
    chosen             the first one that is, from the fastest to slower ones
    """

    @cached_property
    def measured_levers(self) -> Levers:
        """Growing sets of dropped blocks in every precision; the sets are looked for in the least one."""
        context = self.context
        check_levers(context)
        self.check()
        require(context.calibration)
        base, ranking = self._beside(Precision.FP32), self._beside(context.precisions[-1])
        require(base.rehearsal)
        sets = growing_sets(ranking.latency, ranking.recoverability)
        forms = tuple(context.in_precision(precision).released_form for precision in context.precisions)
        inputs = (base.context.recovery, base.context.block_bench, sets, forms, context.fit_labels)
        levers = self._step("levers", measure_levers, *inputs)
        levers = replace(levers, notes=(*levers.notes, *without_part(context.settings)))
        context.run.write("levers.json", to_json(levers))
        return levers

    @cached_property
    def planned(self) -> AutoBuild:
        """This build, or with --precision auto that of the first point to try.

        Raises: TargetOutOfReach where no point meets the demands.
        """
        settings = self.context.settings
        if settings.precision != AUTO:
            return self
        levers = self.measured_levers
        demands = {"max_drop": settings.most_points_lost, "min_speedup": settings.min_speedup}
        lever = choose_point(levers.points, **demands, left=1.0 if settings.iterations == 0 else LEAST_LEFT)
        if lever is None:
            raise no_point(levers.points, **demands)
        return self._at(lever, levers, 0)

    @cached_property
    def chosen(self) -> AutoBuild:
        """This build, or with --precision auto that of the first tried point that is within the allowed loss, once it is finetuned."""
        settings, builds = self.context.settings, [self.planned]
        if settings.precision != AUTO:
            return self
        levers, limit = self.measured_levers, settings.most_points_lost
        built = [builds[0].built_point]
        while limit is not None and settings.min_speedup is None:
            lever = next_point(levers.points, built, limit, to_prove=settings.max_drop is not None)
            if lever is None:
                break
            builds.append(self._at(lever, levers, len(builds)))
            built.append(builds[-1].built_point)
        best = builds[best_built(levers.points, built, limit)]
        released = replace(best, levers=replace(levers, built=tuple(built)))
        vars(released).update(vars(best) | {"levers": released.levers})  # all that was computed already
        return released

    def _beside(self, precision: Precision) -> AutoBuild:
        """Another build in one precision, whose steps are kept beside those of the others."""
        return AutoBuild(self.context.in_precision(precision), self.kit_folder, number=0)

    def _at(self, lever: LeverPoint, levers: Levers, number: int) -> AutoBuild:
        """The build of a point. number: of those before it."""
        return replace(self._beside(lever.precision), levers=levers, lever=lever, number=number)
