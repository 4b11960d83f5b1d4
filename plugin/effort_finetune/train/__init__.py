"""The train room: from settings and a host to a fine-tuned checkpoint and its results."""
