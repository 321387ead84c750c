"""The picture of the README: the summary of a run's report and its latency against accuracy, as a browser shows them.

    python benchmarks/picture.py RUN [--browser chromium]

Writes docs/report.png from RUN/report.html; nothing is drawn here.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "report.png"
WIDTH, HEIGHT = 1100, 1200
SHOWN = ("header", 'section id="trade"')
"""The elements of the page that are shown."""


def excerpt(page: str) -> str:
    """The page with these elements alone, in its own style."""
    head, _, _ = page.partition("<body>")
    parts = [re.search(rf"<{name}[^>]*>.*?</{name.split()[0]}>", page, re.DOTALL) for name in SHOWN]
    assert all(parts), "the report has another structure than it had"
    shown = "\n".join(re.sub(r"<nav.*?</nav>", "", part[0], flags=re.DOTALL) for part in parts if part)
    return f'{head}<body><main id="content">{shown}</main></body></html>'


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--browser", default="chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(excerpt((options.run / "report.html").read_text(encoding="utf-8")), encoding="utf-8")
        quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync")
        size = (f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={PICTURE}")
        subprocess.run([options.browser, *quiet, *size, page.as_uri()], check=True, timeout=120)


if __name__ == "__main__":
    main()
