"""What can be done with the package, as programs that run."""
