"""sqlite, with several processes on one database, in its journal modes that need no shared memory."""
import os
import sqlite3
import subprocess
import sys

from tools import expect

WRITER = """
import sqlite3, sys
path, writer, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
base = sqlite3.connect(path, timeout=120, isolation_level=None)
for row in range(rows):
    base.execute("begin immediate")
    base.execute("insert into rows values (?, ?, ?)", (writer, row, "x" * (row % 700)))
    base.execute("update sums set n = n + 1")
    base.execute("commit")
"""


def run(work, scratch, options):
    rows, writers = (15, 2) if options.quick else (60, 3)
    for mode in ["delete", "truncate", "persist"]:
        path = os.path.join(work, mode + ".db")
        base = sqlite3.connect(path, timeout=120)
        base.execute(f"pragma journal_mode={mode}")
        base.executescript("create table rows (writer, row, text, primary key (writer, row));"
                           "create table sums (n); insert into sums values (0);")
        base.commit()
        command = [sys.executable, "-c", WRITER, path]
        running = [subprocess.Popen(command + [str(number), str(rows)]) for number in range(writers)]
        for process in running:
            expect(process.wait(timeout=600) == 0, mode, "a writer failed")
        expect(base.execute("pragma integrity_check").fetchall() == [("ok",)], mode, "integrity_check")
        expect(base.execute("select n from sums").fetchone() == (rows * writers,), mode, "lost updates")
        expect(base.execute("select count(*) from rows").fetchone() == (rows * writers,), mode, "lost rows")
        base.execute("vacuum")
        expect(base.execute("pragma integrity_check").fetchall() == [("ok",)], mode, "after vacuum")
        base.close()
