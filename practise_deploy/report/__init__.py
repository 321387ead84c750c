"""What builds found out, for people to read: a page a release, a page of several, and both in short as Markdown."""

from practise_deploy.report.page import render_html, render_markdown
from practise_deploy.report.runs import render_runs_html, render_runs_markdown

__all__ = ["render_html", "render_markdown", "render_runs_html", "render_runs_markdown"]
