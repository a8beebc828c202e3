"""Models of MODA (DreamtaleCore/MODA)."""
