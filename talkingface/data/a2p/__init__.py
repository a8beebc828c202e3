"""Motion of conversations: files, statistics, and a learnable synthetic set."""
