"""Trained networks that other models need: the one place that finds, loads and checks them."""
