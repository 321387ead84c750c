"""How well a loss is estimated without labels, what finetuning leaves of it, and how often a promise was true."""

from __future__ import annotations

import json
from typing import Any

from practise_backends.results.formatting import plural

from .shared import ABSENT, RESULTS, read


def losses() -> str:
    """Every student of the study: the loss by labels, the estimates, and what finetuning left."""
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / "losses").glob("*/*.json"))]
    if not records:
        return ABSENT
    rows = [
        "| network | images | blocks dropped | agreement | lost, points | estimated at temperature 0.7 | 1 | 3 | as stated | lost after finetuning |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(records, key=lambda one: (one["network"], one["images"], one["seed"], len(one["dropped"]))):
        refit, tuned = one["refit"], one.get("finetuned")
        after = "" if tuned is None else f"{tuned['lost']:.1f}"
        estimates = " | ".join(f"{refit['estimated'][t]:.1f}" for t in ("0.7", "1", "3"))
        stated = refit.get("stated")
        said = "" if stated is None else f"{stated['estimate']:.1f} [{stated['low']:.1f}, {stated['high']:.1f}]"
        rows.append(
            f"| {one['network']} | {one['images']} | {len(one['dropped'])} | {refit['agreement']:.1f}% "
            f"| {refit['lost']:.1f} ± {1.96 * refit['standard_error']:.1f} | {estimates} | {said} | {after} |"
        )
    return "\n".join(rows)


def promises() -> str:
    """What the builds of random draws came to."""
    found: dict[str, Any] | None = read("promises.json")
    if found is None:
        return ABSENT
    answers, kept = found["answers"], found["kept_loss_points"]
    most = f"; they lost {kept[0]:.1f} to {kept[-1]:.1f} points" if kept else ""
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| builds | {found['builds']} |",
            f"| refused, since the target cost more accuracy than allowed | {found['refused_for_accuracy']} |",
            f"| of these, rightly: with `--max-drop none` they lost more than was allowed | {found['rightly_refused']} of {found['refused_and_built']} that were built |",
            f"| answered kept | {answers['kept']}{most} |",
            f"| of these, significantly above the limit | {found['kept_wrongly']} |",
            f"| answered broken | {answers['broken']} |",
            f"| answered not proven | {answers['not proven']} |",
            f"| stated intervals that hold the true loss | {found['hold_strictly']} of {found['intervals']} |",
            f"| the same, as far as the true loss is known | {found['hold_as_far_as_known']} of {found['intervals']} |",
        ]
    )


def too_much() -> str:
    """What became of targets that a network cannot meet, and of what was offered instead."""
    rows = [
        "| network | images | target | other busy processes | exit code, before finetuning | offered | stated on held-out images | on all test images |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "too_much").glob("*.json")):
        found = json.loads(path.read_text())
        refused, instead = found["refused"], found.get("instead")
        offered = refused["offered"]
        less = (
            "nothing"
            if not offered
            else f"{offered['predicted_percent']['estimate']:.1f}%, {plural(len(offered['dropped']), 'block')}"
        )
        both = ["", ""] if instead is None else [_lost(instead["stated"]), _lost(instead["true"])]
        when = f"{refused['exit_code']}, {'no' if refused['finetuned'] else 'yes'}, after {refused['seconds'] / 60:.1f} min"
        cells = [found["network"], found["images"], f"{found['reduce_percent']}%", found["busy"], when, less, *both]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) if len(rows) > 2 else ABSENT


def _lost(loss: dict[str, Any]) -> str:
    """Agreement and loss, each with its interval."""
    agreement, points = loss["agreement_percent"], loss["points"]
    how = "estimated" if loss["estimated"] else "by labels"
    return (
        f"{agreement['estimate']:.1f}% [{agreement['low']:.1f}, {agreement['high']:.1f}] agree; {points['estimate']:.1f} points lost "
        f"[{points['low']:.1f}, {points['high']:.1f}] {how}, {loss['images']} images"
    )


def predicted_sets() -> str:
    """How the predicted errors of sets rank beside the verified ones."""
    rows = [
        "| network | images | sets | rank correlation, blocks scored by one site | by their whole recovery | relative error of blocks by one site | by their whole recovery |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "predicted_sets").glob("*.json")):
        found = json.loads(path.read_text())
        ranks, errors = found["rank_correlation"], list(found["blocks"].values())
        spans = [f"{min(column):.2f} to {max(column):.2f}" for column in zip(*errors, strict=True)]
        rows.append(
            f"| {found['network']} | {found['images']} | {len(found['sets'])} | {ranks['one site']:.2f} | {ranks['whole recovery']:.2f} "
            f"| {' | '.join(spans)} |"
        )
    return "\n".join(rows) if len(rows) > 2 else ABSENT
