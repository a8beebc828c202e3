"""Generation with MODA (DreamtaleCore/MODA)."""
