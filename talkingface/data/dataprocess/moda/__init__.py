"""Preparation for MODA (DreamtaleCore/MODA)."""
