"""The page of an annotated corpus: opened from disk, without a server or a network."""

from pipelines.exports.report.write import write_report

__all__ = ["write_report"]
