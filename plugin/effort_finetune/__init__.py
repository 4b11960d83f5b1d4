"""Fine-tuning and honest measurement of the Effort deepfake detector inside DeepfakeBench."""

__version__ = "0.1.0"
