"""Datasets of SyncNet (joonson/syncnet_python)."""
