"""`python -m practise_backends.cli`."""

import sys

from practise_backends.cli import main

sys.exit(main())
