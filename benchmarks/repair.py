"""Repair a refused learn in two ways: scale its whole update, or its intruder directions alone.

    python benchmarks/repair.py [--rows 60] [--rates 1e-3 3e-3] [--data ../shared/data] [--out FILE]

Two CLINC domains are learned one after the other on the embedded model with the recipe `naive`, the second with a rate at which the
gate refuses it. Each repair is then run on a copy of that workspace. The file has every share that was tried, with the score of
both tasks; the table shows them, and the intruder directions of the update.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from clinc import read_domains

from perdure import Gate, Workspace

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"
