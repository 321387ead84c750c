"""Pairs of name and value: the parts of a release that are not tables."""

from __future__ import annotations

from practise_backends.results.bench import Benchmark
from practise_backends.results.formatting import (
    ABSENT,
    conditions,
    confidence,
    count,
    interval,
    listed,
    missing,
    number,
    plural,
    quantity,
    rounds,
    size,
)
from practise_backends.results.tables import milliseconds
from practise_backends.terminal import duration
from practise_backends.terms import Comparison, Device, LatencyTable, Measurement
from practise_deploy.outcome import Converted, DeployedModel, ExportedModel, Verification
from practise_deploy.planning.measures import accuracy_name, agreement_text, agreement_title, loss_title
from practise_deploy.report.formatting import lost_or_gained, points_lost, times
from practise_deploy.report.tables import ELSEWHERE
from practise_deploy.terms import OF_CLASSES, DatasetSummary, NetworkSummary, Plan, Preprocessing, Student, TaskKind

Rows = tuple[tuple[str, str], ...]


def network_rows(network: NetworkSummary) -> Rows:
    """The network and its preprocessing."""
    classes = str(network.output_classes) if network.output_classes else missing("no classifier")
    return (
        ("Network", network.name),
        ("Weights", network.weights),
        ("sha256", network.sha256),
        ("Parameters", count(network.parameters)),
        ("MACs", f"{count(network.macs)} per {network.task.sample}"),
        ("Judged as", network.task.kind.value + (f" by {network.task.metric}" if network.task.metric else "")),
        ("Classes", classes),
        ("Features compared at", network.feature),
        *preprocessing_rows(network.preprocessing),
    )


def preprocessing_rows(preprocessing: Preprocessing) -> Rows:
    """From an image file, a text or arrays to the network's input."""
    if preprocessing.inputs:
        taken = (f"{spec.name} {spec.dtype}[{', '.join(map(str, spec.shape))}]" for spec in preprocessing.inputs)
        return (("Inputs", ", ".join(taken)), ("Tokenizer", preprocessing.tokenizer or missing("arrays are given")))
    high, wide = preprocessing.size
    taller, wider = preprocessing.enlarged
    scaled = f"squashed to {taller} × {wider}" if preprocessing.squash else f"scaled to cover {taller} × {wider}"
    side = f"{scaled}, centre crop {high} × {wide}, {preprocessing.interpolation}"
    means, deviations = (
        ", ".join(number(value) for value in values) for values in (preprocessing.mean, preprocessing.std)
    )
    return (
        ("Input", f"{plural(preprocessing.channels, 'channel')}; {side}"),
        ("Normalised", f"mean {means}; standard deviation {deviations}"),
        *((("Channels", "blue, green, red"),) if preprocessing.channel_order == "bgr" else ()),
        *((("Layout", "height, width, channels"),) if preprocessing.layout == "nhwc" else ()),
        ("Augmentation", preprocessing.augment),
        ("Assumed, as not stated", listed(preprocessing.assumed)),
    )


def images_rows(images: DatasetSummary) -> Rows:
    """The images: source, and how many are for what."""
    return (
        ("Source", images.source),
        ("To fit", f"{images.fit:,}"),
        ("Held out", f"{images.held_out:,}"),
        ("Labels", "yes" if images.labelled else "no"),
        ("Skipped", f"{len(images.skipped):,}"),
    )


def latency_rows(table: LatencyTable) -> Rows:
    """The latency of the original, and the resolution of the measurement."""
    return (
        ("Latency of the original", interval(table.baseline_ms, f" {milliseconds(table.timed_by)}")),
        ("Smallest distinguishable saving", quantity(table.resolution_ms, " ms", absent="unknown")),
        ("Input", " × ".join(str(length) for length in table.input_shape)),
        *rounds_rows(table),
    )


def rounds_rows(measurement: Measurement) -> Rows:
    """The course of a measurement, and its noise floor."""
    noise = 50 * (measurement.aa_ratio.high - measurement.aa_ratio.low)
    once = "no network was opened twice"
    errors = measurement.estimator_errors_percent.items()
    sessions = quantity(measurement.session_percent, "% (standard deviation)", absent=once, digits=2)
    return (
        ("Original against itself (A/A)", times(measurement.aa_ratio)),
        ("Noise floor", f"±{number(noise, 2)}% of the latency, half the width of the A/A interval"),
        ("Sessions of one file differ by", sessions),
        ("Estimator", measurement.estimator or ABSENT),
        ("A/A error of the estimators", "; ".join(f"{name} ±{number(error, 2)}%" for name, error in errors) or ABSENT),
        ("Rounds", rounds(measurement)),
        ("Timed by", measurement.timed_by),
        ("Warm-up", duration(measurement.warmup_s)),
        ("Stopped because", measurement.stopped_because or ABSENT),
        ("Conditions", conditions(measurement)),
    )


def comparison_rows(measurement: Comparison | Benchmark) -> Rows:
    """The result of a comparison of two networks, where there are two; where and how they were measured."""
    speedup = measurement.speedup
    won = (
        (("Speed-up", f"{times(speedup)}, {confidence(speedup)} interval"), ("Verdict", str(measurement.verdict)))
        if speedup
        else ()
    )
    fp32 = measurement.fp32 if isinstance(measurement, Comparison) else None
    return (
        *won,
        *((("Speed-up over the original in fp32", times(fp32.speedup)),) if fp32 else ()),
        ("Device", measurement.device.name or missing("it has no name")),
        ("Backend", measurement.backend),
        ("Sessions", f"{measurement.sessions} of each network"),
        *rounds_rows(measurement),
    )


def target(plan: Plan) -> str:
    """The target, in one line."""
    budget = plan.budget
    if budget.reduce_percent is not None:
        return f"cut latency by {budget.reduce_percent:g}%"
    if budget.target_ms is not None:
        cut = f", a cut of {number(plan.target_percent)}%" if plan.target_percent is not None else ""
        return f"{budget.target_ms:g} ms a run{cut}"
    return f"drop {plural(budget.drop, 'block')}" if budget.drop is not None else missing("none was given")


def plan_rows(plan: Plan) -> Rows:
    """The plan against its target."""
    predicted = interval(plan.predicted_percent, "%")
    return (
        ("Target", target(plan)),
        *_within(plan),
        ("Target reached", "yes" if plan.reached else "no"),
        *_margin(plan),
        ("Blocks dropped", listed(plan.dropped)),
        *_loss_before_finetuning(plan),
        *_stability(plan),
        ("Latency before", f"{number(plan.baseline_ms)} ms"),
        ("Latency predicted", f"{number(plan.predicted_ms)} ms, a reduction of {predicted}"),
        ("Reduction measured", interval(plan.measured_percent, "%", absent=ELSEWHERE)),
        ("Device of the table", plan.device),
    )


def _margin(plan: Plan) -> Rows:
    """The lower bound of the saving that must reach the target."""
    if plan.target_percent is None or not plan.dropped:
        return ()
    lower_bound = f"{number(plan.lower_bound_percent)}% of {number(plan.target_percent)}%"
    if plan.measured_percent is None:
        return (("Saving, lower bound", f"{lower_bound} required: the lower bound of the prediction"),)
    half = number((plan.measured_percent.high - plan.measured_percent.low) / 2, 2)
    spare = f"the lower bound of the measurement minus half its interval, {half}%, because the final measurement may come out lower"
    return (("Saving, lower bound", f"{lower_bound} required: {spare}"),)


def _within(plan: Plan) -> Rows:
    """Why a smaller set than requested is dropped."""
    within = plan.within_drop
    if within is None:
        return ()
    cost = points_lost(within.target_set.loss)
    return (
        ("Taken instead", f"the most that --max-drop {within.demand_points:g} allows; the target would cost {cost}"),
    )


def _loss_before_finetuning(plan: Plan) -> Rows:
    """The set's loss after recovery in closed form, on images that the fit did not use; empty if it was not verified."""
    loss = plan.chosen.loss if plan.chosen else None
    if loss is None:
        return ()
    same = agreement_text(loss.kind, interval(loss.agreement_percent, "%"))
    same += f" {'of' if loss.kind in OF_CLASSES else 'on'} {plural(loss.images, loss.sample)} not used in the fit"
    return ((f"{loss_title(of_accuracy=loss.of_accuracy)} before finetuning", f"{points_lost(loss)}; {same}"),)


def _stability(plan: Plan) -> Rows:
    """The selection frequency of the set and of its least stable block; empty if no sets were searched."""
    if plan.set_frequency is None:
        return ()
    among = {name: plan.selection_frequency[name] for name in plan.dropped if name in plan.selection_frequency}
    weakest = min(among, key=among.__getitem__, default=None)
    detail = f"; its least stable block, {weakest}, in {number(100 * among[weakest])}%" if weakest else ""
    return (("Stability of the set", f"chosen in {number(100 * plan.set_frequency)}% of the resamples{detail}"),)


def student_rows(student: Student) -> Rows:
    """How the pruned network recovered."""
    error = f"{number(student.mse_before)} → {number(student.mse)}{f', on {student.judged_on}' if student.judged_on else ''}"
    return (
        ("Method", student.method),
        ("Blocks dropped", listed(student.dropped)),
        ("Feature mse", error),
        ("Steps", f"{student.steps:,}"),
        ("Seconds", number(student.seconds)),
    )


def verification_rows(verification: Verification) -> Rows:
    """The outcome of the verification."""
    loss, neighbours = verification.loss, verification.neighbours_percent
    kind = TaskKind.CLASSIFICATION if loss is None else loss.kind
    return (
        ("Shipped network is faithful to the student", "yes" if verification.faithful else "no"),
        ("Held-out images", f"{verification.images:,}"),
        (loss_title(of_accuracy=loss is None or loss.of_accuracy), points_lost(loss)),
        *(((f"{agreement_title(kind)}, with the original", interval(loss.agreement_percent, "%")),) if loss else ()),
        *((("Nearest neighbours kept, of 5", f"{number(neighbours)}%"),) if neighbours is not None else ()),
        *converted_rows(verification.original),
    )


def converted_rows(converted: Converted | None) -> Rows:
    """What the precision alone costs the original."""
    if converted is None:
        return ()
    kind = TaskKind.CLASSIFICATION if converted.loss is None else converted.loss.kind
    same, away = converted.link.agreement_percent, number(100 * converted.link.relative_rms)
    text = (
        f"{agreement_title(kind).lower() if converted.loss else 'agreement'} with fp32: {interval(same, '%')}"
        if same
        else f"outputs {away}% away from those in fp32 (rms)"
    )
    if converted.accuracy is not None:
        text = f"{accuracy_name(kind)} {interval(converted.accuracy.percent, '%')}, {lost_or_gained(converted.loss)}; {text}"
    return (("The original in this precision", text),)


def exported_rows(model: ExportedModel) -> Rows:
    """The exported file."""
    return (
        ("File", model.path),
        ("sha256", model.sha256),
        ("Size", size(model.bytes)),
        ("Opset", str(model.opset)),
        ("Nodes", f"{model.nodes:,}"),
        ("Batch", "dynamic" if model.dynamic_batch else "fixed"),
        *(
            (("Operators in float", listed([f"{count} {kind}" for kind, count in model.in_float.items()])),)
            if model.in_float
            else ()
        ),
    )


def compiled_rows(compiled: DeployedModel) -> Rows:
    """The file that the device runs, and its precision."""
    engine = (("Engine", compiled.path), ("Engine's sha256", compiled.sha256), ("Engine's size", size(compiled.bytes)))
    return (
        *(engine if compiled.provider else ()),
        ("Precision", precision(compiled)),
        *((("Built by", compiled.provider),) if compiled.provider else ()),
        *((("Built ahead for", listed(compiled.targets)),) if compiled.targets else ()),
        *((("Layers after fusion", f"{compiled.layers:,}"),) if compiled.layers else ()),
    )


def precision(compiled: DeployedModel) -> str:
    """The precision, and the share of arithmetic layers that compute in it."""
    if compiled.precision_share is None:
        return f"{compiled.precision}; the file does not record in how many layers"
    return f"{compiled.precision} in {number(100 * compiled.precision_share)}% of the arithmetic layers"


def device_rows(device: Device) -> Rows:
    """The device and its versions."""
    return (
        ("Device", device.name or missing("it has no name")),
        *((key.replace("_", " "), fact) for key, fact in device.facts.items()),
        *((f"{key} version", version) for key, version in device.versions.items()),
        ("Fingerprint", device.fingerprint),
    )
