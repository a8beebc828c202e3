"""Preparation for HyperLips (semchan/HyperLips)."""
