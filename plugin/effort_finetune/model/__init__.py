"""The Effort detector: decomposition, layers, injection, backbone, losses."""
