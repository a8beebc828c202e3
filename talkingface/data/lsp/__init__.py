"""Data of Live Speech Portraits: the person's files, motion, feature maps and windows."""
