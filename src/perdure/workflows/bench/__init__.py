"""Benchmarks over suites of tasks, and the demo."""
