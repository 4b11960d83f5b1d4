"""Measuring a detector: scores, metrics, intervals, results files and reports."""
