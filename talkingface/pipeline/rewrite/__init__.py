"""Generation with VideoRewrite."""
