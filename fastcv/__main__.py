"""`python -m fastcv` is `fastcv`; `torchrun -m fastcv` starts one for each rank."""

import sys

from fastcv.cli import main

if __name__ == "__main__":
    sys.argv[0] = "fastcv"  # a run records its command in a form that can be repeated
    main()
