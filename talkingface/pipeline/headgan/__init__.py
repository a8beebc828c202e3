"""Generation with HeadGAN (michaildoukas/headGAN)."""
