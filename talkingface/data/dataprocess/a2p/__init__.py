"""Preparation for audio2photoreal (facebookresearch/audio2photoreal)."""
