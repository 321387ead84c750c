"""The pages in a real browser: nothing is loaded, nothing overflows, the verdict is seen first, names stay text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from practise_deploy.outcome import Release
from practise_deploy.report import render_html, render_runs_html
from samples import releases

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"desk": (1280, 800), "tablet": (768, 1024), "phone": (390, 844)}
HOSTILE = ("<img src=x onerror=alert(1)>", '"></svg><script>alert(1)</script>', "a/very-long/" + "path" * 60)
MOST_BYTES = 2_000_000


@dataclass(slots=True)
class Opened:
    """A page and what happened while it was loaded."""

    page: Any
    file: Path
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on the PATH")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    whole, bare = releases.release(), releases.bare_release()
    pages = {
        "whole": render_html(whole),
        "bare": render_html(bare),
        "large": render_html(large()),
        "runs": render_runs_html({"first": whole, "bare": bare, HOSTILE[0]: hostile(HOSTILE[1])}),
        **{f"hostile {n}": render_html(hostile(text)) for n, text in enumerate(HOSTILE)},
    }
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


def large() -> Release:
    """A long measurement with many sessions."""
    whole = releases.release()
    samples = releases.samples(rounds=2000, sessions=6)
    discarded = tuple(f"round {n}: the quota stopped the processor" for n in range(500))
    return replace(whole, bench=replace(whole.bench, samples=samples, discarded=discarded, rounds=2000))


def hostile(text: str) -> Release:
    """Every name and path that a user gives is this text."""
    whole = releases.release()
    first, *others = whole.latency.savings
    judged, *more = whole.recoverability
    return replace(
        whole,
        network=replace(whole.network, name=text, weights=text, notes=(text,)),
        images=replace(whole.images, source=text, skipped=(text,)),
        latency=replace(whole.latency, savings=(replace(first, block=text), *others)),
        recoverability=(replace(judged, block=text), *more),
        plan=replace(whole.plan, dropped=(text,), device=text),
        bench=replace(
            whole.bench,
            device=replace(whole.bench.device, name=text),
            discarded=(text,),
            samples={**whole.bench.samples, "engines": np.array([text] * 4 + ["new"] * 4)},
        ),
        exported=replace(whole.exported, path=text),
        command=f"practise-deploy build {text}",
    )


def opened(browser: Any, file: Path, size: str = "desk", scheme: str = "light") -> Opened:
    width, height = SIZES[size]
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    found = Opened(page=page, file=file)
    page.on("console", lambda message: found.problems.append(message.text))
    page.on("pageerror", lambda error: found.problems.append(str(error)))
    page.on("dialog", lambda dialog: (found.problems.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(file.as_uri())
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["whole", "bare", "large", "runs", "hostile 0", "hostile 1", "hostile 2"])
def test_page_is_alone_fits_and_is_quiet(
    browser: Any, files: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    found = opened(browser, files[name], size, scheme)
    assert found.problems == []
    assert [url for url in found.requests if not url.startswith("data:")] == [files[name].as_uri()]
    wide, room = found.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= room
    assert found.page.evaluate("document.querySelectorAll('script, img').length") == 0
    found.page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_verdict_is_in_the_first_screen(browser: Any, files: dict[str, Path], size: str) -> None:
    found = opened(browser, files["whole"], size)
    for target in ("h1", ".verdict", ".figures .big"):
        box = found.page.locator(target).first.bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= SIZES[size][1], target
    assert found.page.locator("h1").inner_text() == releases.SENTENCE
    found.page.context.close()


def test_keyboard_reaches_the_skip_link_first_then_every_scroll_area(browser: Any, files: dict[str, Path]) -> None:
    found = opened(browser, files["whole"])
    focused = "[document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]"
    found.page.keyboard.press("Tab")
    assert found.page.evaluate(focused) == ["skip", "solid"]
    assert found.page.locator(".skip").bounding_box()["y"] >= 0
    found.page.keyboard.press("Enter")
    assert found.page.evaluate("document.activeElement.id") == "content"
    seen = set()
    for _ in range(60):
        found.page.keyboard.press("Tab")
        seen.add(
            found.page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.tagName")
        )
    assert {"SUMMARY", "Engines in paired rounds", "The command"} <= seen
    found.page.context.close()


@pytest.mark.parametrize(("size", "shown"), [("desk", "wide"), ("tablet", "wide"), ("phone", "narrow")])
def test_one_drawing_of_each_picture_is_shown_with_text_that_can_be_read(
    browser: Any, files: dict[str, Path], size: str, shown: str
) -> None:
    found = opened(browser, files["whole"], size)
    pictures = found.page.locator("svg.picture:visible")
    assert pictures.count() == 6
    for at in range(5):
        picture = pictures.nth(at)
        assert shown in picture.get_attribute("class")
        assert (
            min(picture.evaluate("svg => [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect().height)"))
            > 10
        )
    found.page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_names_in_a_picture_neither_overlap_nor_leave_it(browser: Any, files: dict[str, Path], size: str) -> None:
    found = opened(browser, files["whole"], size)
    overlapping = found.page.evaluate(
        """() => [...document.querySelectorAll('svg.picture')].filter(svg => svg.checkVisibility()).flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
            const out = boxes.filter(([, b]) => b.width && (b.left < frame.left - 1 || b.right > frame.right + 1));
            const cross = boxes.flatMap(([one, a], n) => boxes.slice(n + 1).filter(([, b]) =>
                a.left < b.right - 2 && b.left < a.right - 2 && a.top < b.bottom - 4 && b.top < a.bottom - 4
            ).map(([other]) => `${one} on ${other}`));
            return [...out.map(([text]) => `${text} leaves the picture`), ...cross];
        })"""
    )
    assert overlapping == []
    found.page.context.close()


def test_hostile_names_stay_text(browser: Any, files: dict[str, Path]) -> None:
    for n, text in enumerate(HOSTILE):
        found = opened(browser, files[f"hostile {n}"])
        assert found.page.locator(".name").inner_text().startswith(text)
        assert found.page.title().startswith(text)
        found.page.context.close()


def test_folded_parts_are_on_paper(browser: Any, files: dict[str, Path]) -> None:
    found = opened(browser, files["whole"])
    line = found.page.get_by_text("round 41: the quota stopped the processor")
    assert not line.is_visible()
    found.page.emulate_media(media="print")
    assert line.bounding_box()["height"] > 5
    found.page.context.close()


def test_page_of_a_long_measurement_stays_small(files: dict[str, Path]) -> None:
    assert files["large"].stat().st_size < MOST_BYTES
