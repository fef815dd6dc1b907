#!/usr/bin/env python3
"""manifest.py make FOLDER FILES: makes a tree of that many files.
manifest.py show FOLDER: prints everything about the tree as JSON, contents as SHA-256.
"""
import json
import sys

import archive

if sys.argv[1] == "make":
    archive.make_tree(sys.argv[2], int(sys.argv[3]), 1)
else:
    json.dump(archive.manifest(sys.argv[2]), sys.stdout, indent=1, sort_keys=True)
