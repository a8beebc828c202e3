"""Models of audio2photoreal (facebookresearch/audio2photoreal)."""
