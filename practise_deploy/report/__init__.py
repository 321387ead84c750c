"""Reports of builds: an HTML page of one release or of several, and a short Markdown version of both."""

from practise_deploy.report.page import render_html, render_markdown
from practise_deploy.report.runs import render_runs_html, render_runs_markdown

__all__ = ["render_html", "render_markdown", "render_runs_html", "render_runs_markdown"]
