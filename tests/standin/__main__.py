"""python -m standin FOLDER: the driver, compiled into a folder."""

import sys
from pathlib import Path

from standin import write_driver

write_driver(Path(sys.argv[1]))
