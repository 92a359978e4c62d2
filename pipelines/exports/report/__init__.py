"""HTML report of an annotated corpus, which opens from disk without a server or network."""

from pipelines.exports.report.write import write_report

__all__ = ["write_report"]
