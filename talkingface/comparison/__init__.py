"""``--benchmark``: compare models, runs and folders of videos on the same clips."""
