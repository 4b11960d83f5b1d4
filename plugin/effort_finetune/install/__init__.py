"""Putting the plugin's blocks into a checkout and taking them out."""
