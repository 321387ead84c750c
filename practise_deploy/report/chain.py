"""The verification chain as a row of nodes: what the network became, and what each step changed."""

from __future__ import annotations

from dataclasses import dataclass

from practise_deploy.outcome import Link, Release
from practise_deploy.report.facts import precision
from practise_deploy.report.words import interval, number


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One form of the network. compared: what the step to it changed; empty for the first."""

    name: str
    facts: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()


def steps(release: Release) -> tuple[Step, ...]:
    """teacher -> student -> ONNX -> engine, in the order of the links that follow one another."""
    along = followed(release.verification.links)
    if not along:
        return ()
    first = Step(name=along[0].before, facts=_facts(along[0].before, release))
    return (first, *(Step(name=one.after, facts=_facts(one.after, release), compared=_compared(one)) for one in along))


def followed(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The links of which each begins where the one before it ended."""
    found = list(links[:1])
    for link in links[1:]:
        if link.before == found[-1].after:
            found.append(link)
    return tuple(found)


def direct(links: tuple[Link, ...]) -> tuple[str, ...]:
    """The comparisons that skip steps, as sentences."""
    along = followed(links)
    return tuple(
        f"Directly, {one.before} to {one.after}: {', '.join(_compared(one))}." for one in links if one not in along
    )


def _compared(link: Link) -> tuple[str, ...]:
    found = link.agreement_percent
    same = () if found is None else (f"{interval(found, '%')} same top-1 class",)
    return (*same, f"max abs difference {number(link.max_abs)}")


def _facts(name: str, release: Release) -> tuple[str, ...]:
    accuracy = release.verification.accuracy.get(name)
    told = (f"top-1 {number(accuracy.percent.estimate)}%",) if accuracy else ()
    return (*told, precision(release.compiled)) if name == "engine" else told
