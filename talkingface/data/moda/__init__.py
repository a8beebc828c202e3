"""MODA's representation of a talking portrait, its files and its drawings."""
