"""Run mergekit-yaml many times in one process, which saves loading torch: python mergekit_many.py JOBS.json.

JOBS.json is a list of lists of mergekit-yaml's words. Each is handed to mergekit's own command as it is.
"""

import json
import sys
from pathlib import Path

from mergekit.scripts.run_yaml import main

for words in json.loads(Path(sys.argv[1]).read_text()):
    main.main(words, standalone_mode=False)
