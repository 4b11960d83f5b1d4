"""Demo data: face-like videos and forgeries of them, made by code from a seed, in DeepfakeBench's format."""

from examples.demo.build import NAMES, SIZES, Size, build_demo

__all__ = ["NAMES", "SIZES", "Size", "build_demo"]
