"""Read many thousands of mutated files with every reader: `python benchmarks/mutate.py --files 20000`.

Each must give rows or a PerdureError, within two seconds of processor time and 6 GiB of address space. What does not is listed
with its seed, copied to --keep, and makes the exit code 1. `tests/data/test_mutated_files.py` reads some thousands.
"""

import argparse
import collections
import faulthandler
import resource
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from mutations import READERS, outcome

MOST = 2.0  # seconds of processor time


def main() -> int:
    """Read the files and print what came of them, a line a reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=5000, help="files a reader")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--reader", choices=READERS, action="append")
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
    faulthandler.enable()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for reader in given.reader or READERS:
            found: collections.Counter[str] = collections.Counter()
            longest = (0.0, 0)
            for seed in range(given.first, given.first + given.files):
                came, seconds, file = outcome(reader, seed, Path(folder))
                longest = max(longest, (seconds, seed))
                bad = came not in ("rows", "error") or seconds > MOST
                found[came if seconds <= MOST else "slow"] += 1
                failed += bad
                if bad and found[came] <= 5:
                    print(f"  {reader} seed {seed}: {came} in {seconds:.1f} s", flush=True)
                    if given.keep:
                        given.keep.mkdir(parents=True, exist_ok=True)
                        shutil.copy(file, given.keep / f"{reader.replace(' ', '-')}-{seed}-{file.name}")
            told = ", ".join(f"{count} {came}" for came, count in found.most_common())
            print(f"{reader}: {told}; longest {longest[0]:.2f} s (seed {longest[1]})", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
