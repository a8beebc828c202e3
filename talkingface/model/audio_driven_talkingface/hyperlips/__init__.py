"""Models of HyperLips (semchan/HyperLips)."""
