"""VideoRewrite: dubbing without a generator network (after Bregler et al. 1997)."""
