"""Registries, test metrics and running averages."""
