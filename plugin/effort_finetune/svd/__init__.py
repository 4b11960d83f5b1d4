"""The decomposition of a weight matrix and its cache."""
