"""Constitutions as code: lint, test cases, differences, import, learning from data, history."""
