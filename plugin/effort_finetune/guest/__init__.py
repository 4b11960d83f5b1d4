"""The entrance from a host's own scripts."""
