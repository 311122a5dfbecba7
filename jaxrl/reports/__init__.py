"""Reports: one HTML page about one or several runs, which needs no network. Jinja2 is imported when one is written."""

from jaxrl.reports.build import report

__all__ = ["report"]
