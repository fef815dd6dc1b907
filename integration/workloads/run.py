#!/usr/bin/env python3
"""run.py FOLDER [--scratch FOLDER] [--only NAME ...] [--listing FOLDER] [--quick]

Runs everyday work in FOLDER, which lies on the file system under test, and
checks every result. Prints "PASS name" or "FAIL name: reason" for each and ends
with status 0 if all passed. The same script runs on the host (FUSE) and in the
guest (NFS, 9P).

--scratch FOLDER  a local folder for originals to compare with (default: /tmp)
--listing FOLDER  a folder that holds the 100,000 entries already; without it
                  they are made
--whole-seconds   the client cannot set finer times
--quick           smaller sizes, for a machine that emulates its system calls
"""
import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback

import archive
import database
import listing
import names
import repository
import sparse
import storm
import verified_io

WORKLOADS = {
    "git": repository.run,
    "tar": archive.run,
    "sqlite": database.run,
    "fio": verified_io.run,
    "storm": storm.run,
    "listing": listing.run,
    "sparse": sparse.run,
    "names": names.run,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--scratch", default="/tmp")
    parser.add_argument("--only", nargs="*", choices=sorted(WORKLOADS))
    parser.add_argument("--listing")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--whole-seconds", action="store_true")
    options = parser.parse_args()
    failed = 0
    for name, workload in WORKLOADS.items():
        if options.only and name not in options.only:
            continue
        begin = time.monotonic()
        work = os.path.join(options.folder, "work-" + name)
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            try:
                os.mkdir(work)
                workload(work, scratch, options)
                shutil.rmtree(work)
                left = os.path.lexists(work)
                if left:
                    raise AssertionError("the folder is still there after it was removed")
                print(f"PASS {name} ({time.monotonic() - begin:.1f} s)", flush=True)
            except Exception as error:  # each workload is judged by itself
                failed += 1
                traceback.print_exc()
                reason = str(error).replace("\n", " | ")[:2000]
                print(f"FAIL {name}: {type(error).__name__}: {reason}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
