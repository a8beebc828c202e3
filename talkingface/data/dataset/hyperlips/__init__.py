"""Datasets of HyperLips (semchan/HyperLips)."""
