"""Weights room: every checkpoint layout in, strict reports about it, adapters and exports out."""
