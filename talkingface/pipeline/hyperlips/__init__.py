"""Generation with HyperLips (semchan/HyperLips)."""
