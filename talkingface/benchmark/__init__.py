"""Compare models, runs and finished videos on the same clips: ``--benchmark``."""
