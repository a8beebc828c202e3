"""Preparation for Live Speech Portraits (YuanxunLu/LiveSpeechPortraits)."""
