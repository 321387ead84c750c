"""The verification chain as a row of nodes: each runner of the network, and how its outputs differ from the previous one's."""

from __future__ import annotations

from dataclasses import dataclass

from practise_backends.results.formatting import interval, number
from practise_deploy.outcome import OutputDiff, Release
from practise_deploy.planning.measures import accuracy_name, agreement_title
from practise_deploy.report.rows import precision
from practise_deploy.terms import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One runner of the network. compared: the difference to the previous one; empty for the first."""

    name: str
    details: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()


def steps(release: Release) -> tuple[Step, ...]:
    """teacher -> student -> ONNX -> engine, in the order of the linked comparisons."""
    chain = chain_of(release.verification.links)
    if not chain:
        return ()
    first = Step(name=chain[0].before, details=_details(chain[0].before, release))
    return (
        first,
        *(
            Step(
                name=link.after,
                details=_details(link.after, release),
                compared=_compared(link, release.network.task.kind),
            )
            for link in chain
        ),
    )


def chain_of(links: tuple[OutputDiff, ...]) -> tuple[OutputDiff, ...]:
    """The consecutive links: each begins where the previous one ended."""
    chain = list(links[:1])
    for link in links[1:]:
        if link.before == chain[-1].after:
            chain.append(link)
    return tuple(chain)


def direct(links: tuple[OutputDiff, ...], kind: TaskKind) -> tuple[str, ...]:
    """The comparisons that skip steps, as sentences."""
    chain = chain_of(links)
    return tuple(
        f"Directly, {link.before} to {link.after}: {', '.join(_compared(link, kind))}."
        for link in links
        if link not in chain
    )


def _compared(link: OutputDiff, kind: TaskKind) -> tuple[str, ...]:
    agreement = link.agreement_percent
    same = () if agreement is None else (f"{interval(agreement, '%')} {agreement_title(kind).lower()}",)
    return (*same, f"max abs difference {number(link.max_abs)}")


def _details(name: str, release: Release) -> tuple[str, ...]:
    accuracy = release.verification.accuracy.get(name)
    details = (f"{accuracy_name(release.network.task.kind)} {number(accuracy.percent.estimate)}%",) if accuracy else ()
    return (*details, precision(release.compiled)) if name == "engine" else details
