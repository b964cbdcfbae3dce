"""Ray's Jobs: programs that a cluster runs from a folder that is sent to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError, TaskError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_KEY = "gaussmeter"
_FINAL = ("STOPPED", "SUCCEEDED", "FAILED")
_NOT_FOUND = "status code 404"
_POLL_SECONDS = 1.0
_TALKATIVE = ("ray", "ray.dashboard", "ray.dashboard.modules.dashboard_sdk")
"""Loggers with a level of their own, which say what is uploaded; that is not for users."""


@dataclass(frozen=True, slots=True)
class RayJob:
    """A job of ours on a cluster.

    Attributes:
        number: Ray's name for it.
        name: of the census.
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: of a job that has failed, the last that it said.
    """

    number: str
    name: str
    status: str
    message: str


class RayJobs:
    """The jobs of a cluster.

    Args:
        address: of its dashboard, such as http://127.0.0.1:8265.

    Raises:
        ConfigError: nobody answers there.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        self._address = address
        try:
            self._client: JobSubmissionClient = JobSubmissionClient(address)
        except (OSError, RuntimeError, ValueError, KeyError) as error:  # KeyError: something else answers
            raise ConfigError(f"no Ray cluster answers there: {first_line(error)}", file=address) from error
        for name in _TALKATIVE:  # here, because the client has set them anew
            logging.getLogger(name).setLevel(logging.WARNING)

    def submit(self, command: str, folder: Path, name: str) -> str:
        """Send a folder, and run a command in it.

        Returns:
            the job's number.

        Raises:
            TaskError: the cluster refuses it, or does not answer.
        """
        environment = {"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1"}}
        with self._spoken("the cluster refuses the job"):
            return str(
                self._client.submit_job(entrypoint=command, runtime_env=environment, metadata={_KEY: name})
            )

    def all(self) -> list[RayJob]:
        """Our jobs, the newest first.

        Raises:
            TaskError: the cluster does not answer, or not as it should.
        """
        with self._spoken():
            found = [j for j in self._client.list_jobs() if j.submission_id and _KEY in (j.metadata or {})]
        found.sort(key=lambda j: j.start_time or 0, reverse=True)
        return [_job(j) for j in found]

    def get(self, number: str) -> RayJob:
        """Look up a job.

        Raises:
            ConfigError: there is none.
            TaskError: as for `all`.
        """
        with self._spoken():
            try:
                return _job(self._client.get_job_info(number))
            except RuntimeError as error:
                if _NOT_FOUND not in str(error):
                    raise
                raise ConfigError(f"the cluster has no job {number!r}", file=self._address) from error

    def logs(self, number: str) -> str:
        """What a job has printed; errors as for `get`."""
        self.get(number)
        with self._spoken():
            return str(self._client.get_job_logs(number))

    def follow(self, number: str) -> Iterator[str]:
        """What a job prints, until it ends; errors as for `get`."""
        import time

        shown = 0
        while True:
            ended = self.get(number).status in _FINAL  # asked before the log, which is whole then
            text = self.logs(number)
            if len(text) > shown:
                yield text[shown:]
                shown = len(text)
            if ended:
                return
            time.sleep(_POLL_SECONDS)

    def stop(self, number: str) -> bool:
        """Ask a job to stop; whether it was running. Errors as for `get`."""
        self.get(number)
        with self._spoken():
            return bool(self._client.stop_job(number))

    @contextmanager
    def _spoken(self, what: str = "the cluster does not answer as it should") -> Iterator[None]:
        """Say in one sentence what a cluster said, or that it has gone."""
        from ray.exceptions import RayError

        try:
            yield
        except OSError as error:
            gone = f"the cluster does not answer: {first_line(error)}"
            raise TaskError(gone, file=self._address) from error
        except (RuntimeError, ValueError, RayError) as error:  # RayError: a token is missing
            raise TaskError(f"{what}: {first_line(error)}", file=self._address) from error


def _job(found: Any) -> RayJob:
    return RayJob(
        number=str(found.submission_id),
        name=str((found.metadata or {}).get(_KEY, "")),
        status=str(getattr(found.status, "value", found.status)),
        message=_last_line(str(found.message or "")) if found.status == "FAILED" else "",
    )


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
