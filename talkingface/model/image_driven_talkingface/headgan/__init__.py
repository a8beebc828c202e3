"""Models of HeadGAN (michaildoukas/headGAN)."""
