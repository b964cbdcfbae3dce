"""Report: write a page about subjects, and draw the pictures that go with it.

    python jobs/report.py jobs/configs/report.yaml

`gaussmeter job` writes the page alone; this is the place to begin a report of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from engine import paper, plot, report
from engine.config.jobs import load_job
from engine.config.report import ReportConfig
from engine.errors import ConfigError, GaussmeterError

PICTURES = ("histograms", "kurtosis", "sigma")


def main(path: Path) -> int:
    """Write the report of a configuration; return the exit code."""
    config = load_job(path)
    if not isinstance(config, ReportConfig):
        raise ConfigError(f"describes a {config.job}, not a report", file=str(path))
    page = report(*config.subjects, output=config.output, warehouse=config.warehouse)
    print(f"{page.path}: {', '.join(page.subjects)}")
    for name in page.subjects:
        row = next(iter(paper("table1", subject=name, warehouse=config.warehouse).records()), None)
        if row is None or row["kurtosis"] is None:  # it has no matrices, or constant ones
            continue
        print(f"  {name}: {row['ratio_percent']:.2f} % within 3 sigma, kurtosis {row['kurtosis']:.2f}")
        for picture in PICTURES:
            file = Path(config.output).with_suffix(f".{page.subjects.index(name)}.{picture}.png")
            try:
                print(f"  {plot(name, picture=picture, output=file, warehouse=config.warehouse).path}")
            except ConfigError as error:  # a model without layers has no sigma by depth
                print(f"  no {picture}: {error}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml")
    words = parser.parse_args()
    try:
        sys.exit(main(words.config))
    except GaussmeterError as error:
        print(f"jobs/report.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
