"""The commands: each file is one, `main` dispatches to it."""
