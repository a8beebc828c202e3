"""Models of SyncNet (joonson/syncnet_python)."""
