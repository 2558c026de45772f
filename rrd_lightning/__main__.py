"""Run the command line as ``python -m rrd_lightning``."""

from rrd_lightning.cli import main

if __name__ == "__main__":
    main()
