"""Trained networks that other models need: declared, found, loaded and checked in one place."""
