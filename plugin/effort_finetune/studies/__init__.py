"""Runs of runs: what one result alone cannot say."""
