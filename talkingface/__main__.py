"""``python -m talkingface`` does the same as ``run_talkingface.py``, from any folder."""

import sys

from talkingface.cli import main

if __name__ == "__main__":
    sys.exit(main())
