"""Frames of DeepfakeBench datasets: read, sample, augment, batch, build and check."""
