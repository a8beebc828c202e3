"""Preparation for HeadGAN (michaildoukas/headGAN)."""
