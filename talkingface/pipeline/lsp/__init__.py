"""Generation with Live Speech Portraits (YuanxunLu/LiveSpeechPortraits)."""
