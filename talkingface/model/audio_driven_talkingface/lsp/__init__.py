"""Models of Live Speech Portraits (YuanxunLu/LiveSpeechPortraits)."""
