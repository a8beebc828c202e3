"""Preparation for SyncNet (joonson/syncnet_python)."""
