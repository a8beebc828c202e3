"""Datasets of Live Speech Portraits (YuanxunLu/LiveSpeechPortraits)."""
