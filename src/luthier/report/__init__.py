"""A run as one page of evidence: `write(folder)` makes report.html, report.md and report.json."""

from luthier.report.page import write

__all__ = ["write"]
