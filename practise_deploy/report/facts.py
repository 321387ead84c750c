"""Names and what they are: the parts of a release that are no table."""

from __future__ import annotations

from practise_backends.results.render import milliseconds, rounds
from practise_backends.terms import Comparison, Conditions, Device, LatencyTable
from practise_deploy.outcome import Compiled, Converted, Shipped, Verification
from practise_deploy.report.tables import ELSEWHERE
from practise_deploy.report.words import (
    ABSENT,
    confidence,
    count,
    duration,
    interval,
    listed,
    missing,
    number,
    plural,
    points_lost,
    quantity,
    size,
    times,
)
from practise_deploy.terms import DataFacts, NetworkFacts, Plan, Preprocessing, Student

Facts = tuple[tuple[str, str], ...]


def network_facts(found: NetworkFacts) -> Facts:
    """Which network, and how its input is made."""
    classes = str(found.output_classes) if found.output_classes else missing("the output is no classifier's")
    return (
        ("Network", found.name),
        ("Weights", found.weights),
        ("sha256", found.sha256),
        ("Parameters", count(found.parameters)),
        ("MACs", f"{count(found.macs)} an image"),
        ("Classes", classes),
        ("Features compared at", found.feature),
        *preprocessing_facts(found.preprocessing),
    )


def preprocessing_facts(found: Preprocessing) -> Facts:
    """From an image file to the input, in words."""
    high, wide = found.size
    taller, wider = found.enlarged
    scaled = f"squashed to {taller} × {wider}" if found.squash else f"scaled to cover {taller} × {wider}"
    side = f"{scaled}, centre crop {high} × {wide}, {found.interpolation}"
    means, deviations = (", ".join(number(one) for one in many) for many in (found.mean, found.std))
    return (
        ("Input", f"{plural(found.channels, 'channel')}; {side}"),
        ("Normalised", f"mean {means}; standard deviation {deviations}"),
        ("Augmentation", found.augment),
        ("Assumed, for nobody stated it", listed(found.assumed)),
    )


def images_facts(found: DataFacts) -> Facts:
    """Which images, how many for what."""
    return (
        ("Source", found.source),
        ("To fit", f"{found.fit:,}"),
        ("Held out", f"{found.held_out:,}"),
        ("Labels", "yes" if found.labelled else "no"),
        ("Skipped", f"{len(found.skipped):,}"),
    )


def latency_facts(found: LatencyTable) -> Facts:
    """The original on its device, and how finely that could be measured."""
    return (
        ("Latency of the original", interval(found.baseline_ms, f" {milliseconds(found.timed_by)}")),
        ("Smallest saving told from none", quantity(found.resolution_ms, " ms", absent="unknown")),
        ("Input", " × ".join(str(length) for length in found.input_shape)),
        *rounds_facts(found),
    )


def rounds_facts(found: LatencyTable | Comparison) -> Facts:
    """How a measurement went, and what it can tell from nothing."""
    noise = 50 * (found.aa_ratio.high - found.aa_ratio.low)
    once = "no network was opened twice"
    errors = found.estimator_errors_percent.items()
    sessions = quantity(found.session_percent, "% (standard deviation)", absent=once, digits=2)
    return (
        ("Original against itself (A/A)", times(found.aa_ratio)),
        ("Noise floor", f"±{number(noise, 2)}% of the latency, half the width of the A/A interval"),
        ("Sessions of one file differ by", sessions),
        ("Estimator", found.estimator or ABSENT),
        ("A/A error of the estimators", "; ".join(f"{name} ±{number(error, 2)}%" for name, error in errors) or ABSENT),
        ("Rounds", rounds(found)),
        ("Timed by", found.timed_by),
        ("Warm-up", duration(found.warmup_s)),
        ("Stopped because", found.stopped_because or ABSENT),
        ("Conditions", conditions(found.conditions)),
    )


def comparison_facts(found: Comparison) -> Facts:
    """What two networks against each other came to, and how well one knows."""
    return (
        ("Speed-up", f"{times(found.speedup)}, {confidence(found.speedup)} interval"),
        ("Verdict", found.verdict),
        ("Device", found.device.name or missing("it has no name")),
        ("Backend", found.backend),
        ("Sessions", f"{found.sessions} of each network"),
        *rounds_facts(found),
    )


def conditions(found: Conditions) -> str:
    """What the latency depends on, in words."""
    graph = ", CUDA graph" if found.cuda_graph else ""
    clock = found.clock.replace("_", " ")
    threads = plural(found.threads, "thread")
    return f"batch {found.batch}, {threads}, {found.precision}, {clock} time{graph}, seed {found.seed}"


def target(plan: Plan) -> str:
    """What was asked, in words."""
    asked = plan.budget
    if asked.reduce_percent is not None:
        return f"cut latency by {asked.reduce_percent:g}%"
    if asked.target_ms is not None:
        cut = f", a cut of {number(plan.target_percent)}%" if plan.target_percent is not None else ""
        return f"{asked.target_ms:g} ms a run{cut}"
    return f"drop {plural(asked.drop, 'block')}" if asked.drop is not None else missing("none was given")


def plan_facts(plan: Plan) -> Facts:
    """The plan against its target."""
    predicted = interval(plan.predicted_percent, "%")
    return (
        ("Target", target(plan)),
        *_within(plan),
        ("Target reached", "yes" if plan.reached else "no"),
        *_margin(plan),
        ("Blocks dropped", listed(plan.dropped)),
        *_loss_before_finetuning(plan),
        *_sureness(plan),
        ("Latency before", f"{number(plan.baseline_ms)} ms"),
        ("Latency predicted", f"{number(plan.predicted_ms)} ms, a reduction of {predicted}"),
        ("Reduction measured", interval(plan.measured_percent, "%", absent=ELSEWHERE)),
        ("Device of the table", plan.device),
    )


def _margin(plan: Plan) -> Facts:
    """What of the saving must reach the target, and why it is less than what was found."""
    if plan.target_percent is None or not plan.dropped:
        return ()
    surely = f"{number(plan.surely_percent)}% of {number(plan.target_percent)}%"
    if plan.measured_percent is None:
        return (("Surely saved", f"{surely} asked for: the low end of the prediction"),)
    half = number((plan.measured_percent.high - plan.measured_percent.low) / 2, 2)
    spare = f"the low end of what was measured less half its interval, {half}%, since the final measurement may come out lower"
    return (("Surely saved", f"{surely} asked for: {spare}"),)


def _within(plan: Plan) -> Facts:
    """Why a smaller set than asked went."""
    found = plan.within_drop
    if found is None:
        return ()
    asked = points_lost(found.asked.loss)
    return (
        ("Taken instead", f"the most that --max-drop {found.demand_points:g} allows; the target would cost {asked}"),
    )


def _loss_before_finetuning(plan: Plan) -> Facts:
    """What the set costs after recovery in closed form, on images that the fit did not see; nothing where it was not verified."""
    loss = plan.chosen.loss if plan.chosen else None
    if loss is None:
        return ()
    same = f"the original's answer on {interval(loss.agreement_percent, '%')} of {plural(loss.images, 'image')} that the fit did not see"
    return (("Accuracy lost before finetuning", f"{points_lost(loss)}; {same}"),)


def _sureness(plan: Plan) -> Facts:
    """How often the set is chosen again, and its least sure block, where sets were searched for."""
    if plan.set_share is None:
        return ()
    among = {name: plan.chosen_share[name] for name in plan.dropped if name in plan.chosen_share}
    least = min(among, key=among.__getitem__, default=None)
    told = f"; its least sure block, {least}, in {number(100 * among[least])}%" if least else ""
    return (("Sure of the set", f"chosen again in {number(100 * plan.set_share)}% of the resamples{told}"),)


def student_facts(student: Student) -> Facts:
    """How the pruned network recovered."""
    error = f"{number(student.mse_before)} → {number(student.mse)}{f', on {student.judged_on}' if student.judged_on else ''}"
    return (
        ("Method", student.method),
        ("Blocks dropped", listed(student.dropped)),
        ("Feature mse", error),
        ("Steps", f"{student.steps:,}"),
        ("Seconds", number(student.seconds)),
    )


def verification_facts(found: Verification) -> Facts:
    """The outcome of the verification."""
    return (
        ("Shipped network is faithful to the student", "yes" if found.faithful else "no"),
        ("Held-out images", f"{found.images:,}"),
        ("Accuracy lost", points_lost(found.loss)),
        *((("Same top-1 class as the original", interval(found.loss.agreement_percent, "%")),) if found.loss else ()),
        *converted_facts(found.original),
    )


def converted_facts(found: Converted | None) -> Facts:
    """What the precision alone costs, of the original."""
    if found is None:
        return ()
    same, away = found.link.agreement_percent, number(100 * found.link.relative_rms)
    told = (
        f"{interval(same, '%')} same top-1 class as in fp32"
        if same
        else f"outputs {away}% away from those in fp32 (rms)"
    )
    if found.accuracy is not None:
        told = f"top-1 {interval(found.accuracy.percent, '%')}, lost {points_lost(found.loss)}; {told}"
    return (("The original in this precision", told),)


def shipped_facts(found: Shipped) -> Facts:
    """The file that was exported."""
    return (
        ("File", found.path),
        ("sha256", found.sha256),
        ("Size", size(found.bytes)),
        ("Opset", str(found.opset)),
        ("Nodes", f"{found.nodes:,}"),
        ("Batch", "dynamic" if found.dynamic_batch else "fixed"),
    )


def compiled_facts(found: Compiled) -> Facts:
    """What the device runs, and how that is known."""
    engine = (("Engine", found.path), ("Engine's sha256", found.sha256), ("Engine's size", size(found.bytes)))
    return (
        *(engine if found.provider else ()),
        ("Precision", precision(found)),
        *((("Built by", found.provider),) if found.provider else ()),
        *((("Built ahead for", listed(found.targets)),) if found.targets else ()),
        *((("Layers after fusion", f"{found.layers:,}"),) if found.layers else ()),
    )


def precision(found: Compiled) -> str:
    """The precision, and how much of the arithmetic is in it."""
    if found.precision_share is None:
        return f"{found.precision}; the file does not tell in how many layers"
    return f"{found.precision} in {number(100 * found.precision_share)}% of the arithmetic layers"


def device_facts(found: Device) -> Facts:
    """The device as it was found."""
    return (
        ("Device", found.name or missing("it has no name")),
        *((key.replace("_", " "), fact) for key, fact in found.facts.items()),
        *((f"{key} version", version) for key, version in found.versions.items()),
        ("Fingerprint", found.fingerprint),
    )
