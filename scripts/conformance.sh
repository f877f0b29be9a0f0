#!/usr/bin/env bash
# Celery's own integration suite against a Gelery worker and, as the control, against a Python one, and the table of what came
# of it. See interop/conformance/doc.go.
#
#   scripts/conformance.sh                           Celery 5.2, 5.4 and 5.6 on Redis and RabbitMQ
#   scripts/conformance.sh celery-5.6/redis.redis    one version on one stack
source "$(dirname "$0")/common.sh"

scripts/setup.sh

report=$(mktemp)
trap 'rm -f "$report"' EXIT
export GELERY_TEST_SERVERS=required GELERY_TEST_PYTHON=required GELERY_CONFORMANCE_REPORT=$report

# A test of the suite waits most of the time, so several trials at once cost none of them its time.
status=0
limited 13500 go test -count=1 -parallel "${GELERY_CONFORMANCE_PARALLEL:-4}" -timeout 220m -run "^TestSuite\$/${1:-}" ./interop/conformance || status=$?
[ -s "$report" ] || exit "$status"

say "passed of comparable"
printf '| Celery | Broker and results | Worker | Passed | Comparable | At the second attempt | Seconds |\n|---|---|---|---|---|---|---|\n'
grep '^row' "$report" | cut -f 2- | sort | sed 's/\t/ | /g; s/^/| /; s/$/ |/'
say "missed"
grep '^missed' "$report" | cut -f 2- | sort || echo "nothing"
exit "$status"
