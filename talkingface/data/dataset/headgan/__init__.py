"""Datasets of HeadGAN (michaildoukas/headGAN)."""
