"""Report: write a page about subjects, and draw the pictures that go with it.

    python jobs/report.py jobs/configs/report.yaml

`gaussmeter job` writes the page alone; this is the place to begin a report of your own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine import paper, plot, report
from engine.config.jobs import load_job
from engine.config.report import ReportConfig
from engine.errors import GaussmeterError

PICTURES = ("histograms", "kurtosis", "sigma")


def main(path: Path) -> int:
    """Write the report of a configuration; return the exit code."""
    config = load_job(path)
    if not isinstance(config, ReportConfig):
        sys.exit(f"jobs/report.py: {path}: describes a {config.job}, not a report")
    page = report(*config.subjects, output=config.output, warehouse=config.warehouse)
    print(f"{page.path}: {', '.join(page.subjects)}")
    for name in page.subjects:
        (row,) = paper("table1", subject=name, warehouse=config.warehouse).records()[:1]
        if not row["matrices"]:
            continue
        print(f"  {name}: {row['ratio_percent']:.2f} % within 3 sigma, kurtosis {row['kurtosis']:.2f}")
        for picture in PICTURES:
            file = Path(config.output).with_suffix(f".{page.subjects.index(name)}.{picture}.png")
            print(f"  {plot(name, picture=picture, output=file, warehouse=config.warehouse).path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except GaussmeterError as error:
        sys.exit(f"jobs/report.py: {error}")
