"""What a build found out, for people to read: one HTML page, and the same in short as Markdown."""

from practise_deploy.report.page import render_html, render_markdown

__all__ = ["render_html", "render_markdown"]
