"""`python -m bimamba` is the command."""

import sys

from bimamba.main import main

sys.exit(main())
