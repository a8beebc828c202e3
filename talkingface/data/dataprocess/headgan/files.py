"""Names of the files of a clip prepared for HeadGAN, beside ``points.npz``."""

PICTURES, MASKS, SOUND = "pictures.h5", "masks.h5", "audio.wav"
# Of clips of the original code (tools/convert.py):
OFFICIAL = "official.npz"
PNCC, REFERENCES, REFERENCE_PNCC = "pncc.h5", "references.h5", "reference_pncc.h5"
SAMPLE_RATE = 16000
