"""The commands that read checkpoints: scan and check."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.listeners import listening
from engine.cli.options import Device, Format, parse_size
from engine.cli.output import complain, printable, say
from engine.cli.progress import progress
from engine.cli.render import cell, nbytes, print_table
from engine.cli.startup import reading_ahead
from engine.errors import ConfigError, GaussmeterError, Interruption, WarehouseError
from engine.execution.process import without_scipy
from engine.nouns.defaults import MAX_MAGNITUDE, RANGES, SPECTRUM_SIDE, WAREHOUSE

if TYPE_CHECKING:
    from engine.verbs.scan import DryRun, ScanReport

_FAILED = 3
_Patterns = list[str] | None
Failure = tuple[str, GaussmeterError]


def scan(
    uris: Annotated[
        list[str],
        typer.Argument(
            metavar="URI...", help="A checkpoint: file, folder, hf://, s3://, gs://, az://, https://."
        ),
    ],
    warehouse: options.Warehouse = Path(WAREHOUSE),
    name: Annotated[
        str | None, typer.Option(help="The subject's name; by default taken from the place.")
    ] = None,
    workers: options.Workers = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Read 32-bit floats twice: filters and quantiles become exact too."),
    ] = False,
    iid: Annotated[
        bool,
        typer.Option(
            "--iid", help="Rows, columns and neighbours too: could the elements have been shuffled?"
        ),
    ] = False,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="Singular values too, and what --iid adds; takes its time.")
    ] = False,
    spectrum_side: Annotated[
        int, typer.Option(min=1, help="Singular values only of matrices whose smaller side is at most this.")
    ] = SPECTRUM_SIDE,
    include: Annotated[_Patterns, typer.Option(help="Only tensors whose name matches this pattern.")] = None,
    exclude: Annotated[_Patterns, typer.Option(help="No tensors whose name matches this pattern.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Scan again even what has not changed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")] = False,
    task_size: Annotated[
        str | None,
        typer.Option(help="About how much a task reads; by default as fits, up to 256MiB.", metavar="SIZE"),
    ] = None,
    chunk_size: Annotated[str, typer.Option(help="How much one read asks for.", metavar="SIZE")] = "1MiB",
    memory: options.Memory = None,
    ranges: options.Ranges = RANGES,
    device: options.On = Device.AUTO,
    ray: options.Ray = None,
    per_gpu: options.PerGpu = 1,
    task_seconds: options.TaskSeconds = None,
    events: options.Events = None,
    form: options.As = Format.TABLE,
    quiet: options.Quiet = False,
) -> None:
    """Count every value of checkpoints and keep the counts.

    A scan that was interrupted goes on where it stopped; a checkpoint that has not changed is not read again.
    """
    without_scipy()
    if name is not None and len(uris) > 1:
        raise ConfigError(f"--name names one checkpoint, but {len(uris)} were given")
    if form not in (Format.TABLE, Format.JSON):
        raise ConfigError(f"scan prints table or json, not {form}")
    sizes = {
        "task_bytes": parse_size(task_size, "--task-size"),
        "block_bytes": parse_size(chunk_size, "--chunk-size"),
        "memory_bytes": parse_size(memory, "--memory"),
    }
    common: dict[str, Any] = {
        "include": include or (),
        "exclude": exclude or (),
        "ranges": ranges,
        "iid": iid,
        "spectrum": spectrum_side if spectrum else 0,
        **sizes,
    }
    if dry_run:
        _dry_run(uris, form, {**common, "workers": workers, "ray": ray, "device": device.value})
        return
    common |= {"warehouse": warehouse, "name": name, "exact": exact, "force": force}
    from engine.execution.choose import choose_executor

    with ExitStack() as stack:
        stack.enter_context(reading_ahead(uris))
        listener = stack.enter_context(listening(events, quiet=quiet))
        runs = partial(choose_executor, ray, workers, per_gpu=per_gpu, task_seconds=task_seconds)
        executor = stack.enter_context(runs(device=device.value, listener=listener))
        reports, failures = _scan_all(uris, {**common, "executor": executor, "listener": listener})
    hint = "; what is not i.i.d.: gaussmeter sql iid" if iid or spectrum else ""
    _report(reports, failures, form if form is Format.JSON or not quiet else None, warehouse, hint)
    if failures:
        raise typer.Exit(_FAILED)


def _report(
    reports: list[ScanReport], failures: list[Failure], form: Format | None, warehouse: Path, hint: str
) -> None:
    """Print what was done; a form of None prints nothing. The hint ends each sentence."""
    if form is Format.JSON:
        failed = [{"uri": u, "status": "failed", "error": str(e)} for u, e in failures]
        say(json.dumps([*map(asdict, reports), *failed], indent=1) + "\n")
    elif form is not None:
        for report in reports:
            say(_sentence(report, warehouse) + hint + "\n")
        if failures:
            sys.stderr.write(f"{len(failures)} of {len(reports) + len(failures)} could not be scanned\n")


def _scan_all(uris: list[str], common: dict[str, Any]) -> tuple[list[ScanReport], list[Failure]]:
    """Scan one after the other; of several, a bad one does not stop the rest."""
    from engine.verbs.scan import scan as run

    reports, failures = [], []
    for uri in uris:
        try:
            reports.append(run(uri, **common))
        except KeyboardInterrupt as stop:
            message = "interrupted; what was counted is kept, and the same command goes on with it"
            raise Interruption(message) from stop
        except WarehouseError:
            raise
        except GaussmeterError as error:
            if len(uris) == 1:
                raise
            failures.append((uri, error))
            complain(str(error))
    return reports, failures


def _sentence(report: ScanReport, warehouse: Path) -> str:
    name, where = printable(report.name), f"subject {report.subject_id} in {printable(str(warehouse))}"
    if report.status == "unchanged":
        return f"{name}: unchanged, {where}"
    listed = f" ({report.listed} listed but not counted)" if report.listed else ""
    rate = f"{nbytes(report.nbytes_read)} in {report.seconds:.2f} s"
    again = {
        "resumed": "completed an interrupted scan, read ",
        "added": "added to an earlier scan, read ",
    }.get(report.status, "")
    return f"{name}: {report.tensors:,} tensors{listed}, {again}{rate}, {where}"


def _dry_run(uris: list[str], form: Format, common: dict[str, Any]) -> None:
    from engine.verbs.scan import dry_run

    plans: list[DryRun] = [dry_run(uri, **common) for uri in uris]
    if form is Format.JSON:
        say(json.dumps([asdict(p) for p in plans], indent=1) + "\n")
        return
    for plan in plans:
        say(printable(f"{plan.name} ({plan.format}, {plan.uri})") + "\n")
        rows = [
            ("tensors", f"{cell(plan.tensors)} to count, {cell(plan.listed)} to list with a reason"),
            ("bytes", f"{nbytes(plan.nbytes)} in {plan.files} file{'s' * (plan.files != 1)}"),
            ("tasks", f"{cell(plan.tasks)}, {plan.workers} at a time"),
            ("memory", f"at most {plan.projected_bytes / 2**20:,.0f} MiB projected"),
        ]
        for label, text in rows:
            say(f"  {label:<8} {text}\n")


def check(
    subject: Annotated[str, typer.Argument(help="A checkpoint's place, or a subject of the warehouse.")],
    warehouse: options.Warehouse = Path(WAREHOUSE),
    ignored: Annotated[
        list[str] | None, typer.Option("--ignore", help="Leave out this kind of finding; repeatable.")
    ] = None,
    max_magnitude: Annotated[float, typer.Option(help="Larger weights are damage.")] = MAX_MAGNITUDE,
    workers: options.Workers = None,
    form: options.As = Format.TABLE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No output, only the exit code.")] = False,
) -> None:
    """Look for damage: exit 1 when something is wrong.

    Finds NaN, infinities, tensors of zeros or of one value, absurd magnitudes, tensors that the index names
    and no shard has, and files that are no valid checkpoint; rows of zeros of subjects that were scanned with
    --iid. A checkpoint given by its place is read now and enters no warehouse.
    """
    without_scipy()
    from engine.verbs.check import check as run
    from engine.warehouse.result import Result

    if form is Format.PARQUET:
        raise ConfigError("check prints table, csv or json, not parquet")
    with progress(quiet=quiet) as listener:
        report = run(
            subject,
            warehouse=warehouse,
            ignore_problems=ignored or (),
            max_magnitude=max_magnitude,
            workers=workers,
            listener=listener,
        )
    findings = Result(
        ["where", "problem", "detail"], [(f.where, f.problem, f.detail) for f in report.findings]
    )
    if quiet:
        pass
    elif form is Format.JSON:
        say(json.dumps({"ok": not report.findings, **asdict(report)}, indent=1) + "\n")
    elif form is Format.CSV:
        say(findings.to_csv().encode())
    elif report.findings:
        print_table(findings)
        count = len(report.findings)
        found = f"{count:,} finding{'s' * (count != 1)} in {report.tensors:,} tensors"
        say(f"{printable(report.subject)}: {found}\n")
    else:
        say(f"{printable(report.subject)}: {report.tensors:,} tensors, nothing wrong\n")
    if report.findings:
        raise typer.Exit(1)
