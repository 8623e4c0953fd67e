"""A DAG for Airflow 3: one task for each step of a night.

A task that fails for a moment is retried and goes on where it stopped; a difference fails at once, for a person. The
tasks of a day share the folder `POINTS_HOME`: give it a volume that all workers have, or one worker.
"""

from datetime import UTC, datetime, timedelta

import points_steps
from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException


@task
def export(day: str) -> None:
    points_steps.export(day)


@task
def verify(day: str) -> None:
    try:
        points_steps.verify(day)
    except points_steps.DifferentError as error:
        raise AirflowFailException(str(error)) from None


@task
def reconcile(day: str) -> None:
    try:
        points_steps.reconcile(day)
    except points_steps.DifferentError as error:
        raise AirflowFailException(str(error)) from None


@task
def publish(day: str) -> str:
    return points_steps.publish(day)


@dag(
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
)
def nightly_points() -> None:
    day = "{{ ds }}"
    export(day) >> verify(day) >> reconcile(day) >> publish(day)


dag_of_points = nightly_points()
