"""Datasets of MODA (DreamtaleCore/MODA)."""
