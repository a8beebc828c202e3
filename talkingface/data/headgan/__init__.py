"""What HeadGAN needs to know of clips: face model, geometry, voice, files."""
