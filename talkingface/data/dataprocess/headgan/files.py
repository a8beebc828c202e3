"""Names of the files of a clip prepared for HeadGAN, beside ``points.npz``."""

PICTURES, MASKS, SOUND = "pictures.h5", "masks.h5", "audio.wav"
OFFICIAL = "official.npz"
SAMPLE_RATE = 16000
