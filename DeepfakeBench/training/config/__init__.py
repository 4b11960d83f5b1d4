"""Settings: the YAML files, and how they and the flags become one dictionary."""
