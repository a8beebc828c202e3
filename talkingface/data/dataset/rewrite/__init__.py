"""Training items of VideoRewrite."""
