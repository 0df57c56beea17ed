"""`python -m tollgate_trainer`."""

import os
import sys

from tollgate_trainer.main import main

code = main()
sys.stdout.flush()
sys.stderr.flush()
# Everything is written and closed; tearing down the libraries would take a second more, which somebody pays for.
os._exit(code)
