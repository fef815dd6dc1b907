"""A git repository made on the spot is cloned, checked and changed."""
import os

from tools import content, expect, sh, write

GIT = ["git", "-c", "user.name=magma", "-c", "user.email=magma@localhost", "-c", "init.defaultBranch=main",
       "-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "merge.directoryRenames=false"]


def run(work, scratch, options):
    files, commits = (60, 3) if options.quick else (400, 6)
    origin = os.path.join(scratch, "origin")
    sh(*GIT, "init", "-q", origin)
    for commit in range(commits):
        for number in range(commit, files, commits):
            folder = os.path.join(origin, f"d{number % 7}")
            os.makedirs(folder, exist_ok=True)
            write(os.path.join(folder, f"f{number}"), content(number * 31 + commit, 50 + number * 37 % 9000))
        sh(*GIT, "add", "-A", cwd=origin)
        sh(*GIT, "commit", "-q", "-m", f"commit {commit}", cwd=origin)

    clone = os.path.join(work, "clone")
    sh(*GIT, "clone", "-q", "--no-local", origin, clone)
    sh(*GIT, "fsck", "--full", "--strict", cwd=clone)
    expect(sh(*GIT, "status", "--porcelain", cwd=clone) == "", "a fresh clone must be clean")
    expect(sh(*GIT, "rev-parse", "HEAD", cwd=clone) == sh(*GIT, "rev-parse", "HEAD", cwd=origin), "other HEAD")

    sh(*GIT, "checkout", "-q", "-b", "side", "HEAD~1", cwd=clone)
    sh(*GIT, "mv", "d1", "moved", cwd=clone)
    write(os.path.join(clone, "new file"), b"new\n")
    sh(*GIT, "add", "-A", cwd=clone)
    sh(*GIT, "commit", "-q", "-m", "move and add", cwd=clone)
    sh(*GIT, "merge", "-q", "-m", "merge", "main", cwd=clone)
    sh(*GIT, "gc", "-q", cwd=clone)
    sh(*GIT, "fsck", "--full", "--strict", cwd=clone)
    expect(sh(*GIT, "status", "--porcelain", cwd=clone) == "", "the merged tree must be clean")
