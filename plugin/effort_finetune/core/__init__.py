"""What every room stands on: errors, files, progress, seeds, devices, precision, metrics."""
