"""Generation with audio2photoreal (facebookresearch/audio2photoreal)."""
