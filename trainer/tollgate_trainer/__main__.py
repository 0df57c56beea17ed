"""`python -m tollgate_trainer`."""

import sys

from tollgate_trainer.main import main

sys.exit(main())
