"""Evaluation that can be believed: suites of scenarios, what is measured in them, intervals, reports."""
