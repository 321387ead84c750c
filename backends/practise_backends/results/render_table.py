"""A latency table as plain text, and what to do with it next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from practise_backends.results.bundle import Kit
from practise_backends.results.documents import samples_path
from practise_backends.results.formatting import conditions, confidence, interval, number, rounds
from practise_backends.results.render import disturbance, ratio
from practise_backends.results.tables import in_columns, milliseconds, savings
from practise_backends.terminal import one_line
from practise_backends.terms import LatencyTable


def table_text(table: LatencyTable) -> str:
    """Every block's saving, the greatest first, and how far the figures can be trusted."""
    ranked = sorted(table.savings, key=lambda saving: -saving.reduction_percent.estimate)
    rows = in_columns(savings(replace(table, savings=tuple(ranked))))
    return "\n".join([rows, "", *_provenance(table)]) + "\n"


def next_step(kit: Kit, table: LatencyTable, place: Path) -> str:
    """Where the table went, and how a plan is made with it: for what was measured, where that is not what was asked."""
    changed_options = "".join(
        f" --{name} {measured}"
        for name, requested, measured in (
            ("backend", kit.asked.backend, table.backend),
            ("threads", kit.asked.threads, table.conditions.threads),
            ("clock", kit.asked.clock or table.conditions.clock, table.conditions.clock),
        )
        if requested != measured
    )
    changed_options += " --cuda-graph" if table.conditions.cuda_graph and not kit.asked.cuda_graph else ""
    written = one_line(f"written: {place}, and its raw samples: {samples_path(place)}") + "\n"
    if not kit.plan:
        return written
    named = one_line(place.name)
    return (
        f"{written}"
        f"next, where practise-deploy is and {named} was copied to:\n"
        f"  {one_line(kit.plan)}{changed_options} --latency-table {named}\n"
    )


def _provenance(table: LatencyTable) -> tuple[str, ...]:
    """What was measured, where, and how."""
    splits = sum(not twin.same for twin in table.twins)
    return (
        f"{one_line(table.network)} unpruned: {interval(table.baseline_ms)} {milliseconds(table.timed_by)}; brackets hold the "
        f"{confidence(table.baseline_ms)} interval",
        f"noise floor, the network against itself: {ratio(table.aa_ratio)}; the smallest "
        f"saving distinguishable from zero is {number(table.resolution_ms)} ms",
        *(
            []
            if table.additivity is None
            else [f"sets save {interval(table.additivity)} times the sum of their blocks"]
        ),
        f"twins of a class measured side by side: {len(table.twins)}, of which {splits} differ",
        f"{one_line(table.device.name)}, backend {table.backend}, {conditions(table)}",
        f"{rounds(table)}; stopped because {table.stopped_because}",
        *disturbance(table.environment),
        *(f"note: {one_line(note)}" for note in table.notes),
    )
