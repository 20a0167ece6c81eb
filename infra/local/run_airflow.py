"""Airflow's command line in a process that ends at once: Python's last collection would walk all that it imported."""

import atexit
import gc
import sys

from airflow.__main__ import main

if __name__ == "__main__":
    atexit.register(gc.freeze)
    sys.exit(main())
