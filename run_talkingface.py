"""The one command: ``python run_talkingface.py --model=<Model> --dataset=<Dataset>``."""

import sys

from talkingface.cli import main

if __name__ == "__main__":
    sys.exit(main())
