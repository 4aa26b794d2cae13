"""Pages built from records; imports no torch."""

from perdure.report.page import render, write_report

__all__ = ["render", "write_report"]
