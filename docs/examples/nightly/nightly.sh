#!/bin/sh
# nightly.sh
set -e
day=${1:-$(date -u +%F)}
ids='--ids ids.csv --ids-column customer_id'
for begun in "points/$day"/shards/part-*; do if [ -e "$begun" ]; then ids=; fi; done
capillary-async export allocations --quiet $ids --program-id 2282 --point-category-id 17383 \
  --expiry-date-start 2025-06-01 --expiry-date-end 2027-06-01 --out "points/$day"
capillary-async verify "points/$day" --quiet
capillary-async reconcile "points/$day" --books books.csv --key id=award_id --compare remaining=points,status --tolerance 0.001 \
  --out "differences-$day.parquet" --report "report-$day.html"
