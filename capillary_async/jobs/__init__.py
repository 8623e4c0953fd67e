"""Jobs over many customers: export what Capillary holds, prove that it is complete, compare it with your own books.

Invariant: built on the public face of the SDK alone; what is listed below is all that users import. Needs the extra
`jobs`.

    async with AsyncSession.from_env() as capillary:
        result = await jobs.export(
            "allocations", customer_ids, "points/2025-06-01", session=capillary, program_id=2282,
            point_category_id=17383, expiry_date_start="2025-06-01", expiry_date_end="2027-06-01")
        assert result.complete
        assert (await jobs.verify("points/2025-06-01")).ok
        found = await jobs.reconcile(
            "points/2025-06-01", "books.csv", key={"id": "award_id"}, compare={"remaining": "points"})
"""

from __future__ import annotations

from capillary_async._lazy import adopt
from capillary_async.jobs._common.errors import JobError
from capillary_async.jobs._comparing.result import ReconcileResult
from capillary_async.jobs._export import export
from capillary_async.jobs._exporting.customer_ids import ids_in_parquet
from capillary_async.jobs._exporting.progress import ExportProgress, ExportResult
from capillary_async.jobs._plan import ExportPlan, plan_export
from capillary_async.jobs._publish import publish
from capillary_async.jobs._publishing.result import PublishResult
from capillary_async.jobs._publishing.sending import PublishProgress
from capillary_async.jobs._reconcile import reconcile
from capillary_async.jobs._replay import ReplayResult, replay
from capillary_async.jobs._report.point_reports import expiry_report, liability_report
from capillary_async.jobs._report.result import PointsReport
from capillary_async.jobs._verify import VerifyResult, verify

__all__ = [
    "ExportPlan",
    "ExportProgress",
    "ExportResult",
    "JobError",
    "PointsReport",
    "PublishProgress",
    "PublishResult",
    "ReconcileResult",
    "ReplayResult",
    "VerifyResult",
    "expiry_report",
    "export",
    "ids_in_parquet",
    "liability_report",
    "plan_export",
    "publish",
    "reconcile",
    "replay",
    "verify",
]

adopt(__name__, [globals()[name] for name in __all__])
del adopt  # no name of this package's
