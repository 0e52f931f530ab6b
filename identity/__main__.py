"""`python -m identity` is the program `identity`."""

import sys

from identity.cli import main

sys.exit(main())
