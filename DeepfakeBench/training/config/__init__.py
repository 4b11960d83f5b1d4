"""Settings: the YAML files, and how they become one dictionary."""
