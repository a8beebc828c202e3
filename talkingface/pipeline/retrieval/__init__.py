"""Mouths of a person, found by the sound and put into other frames (after Video Rewrite, 1997)."""
