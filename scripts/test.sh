#!/usr/bin/env bash
# The full test run: installs what is missing, runs every test against real servers that the tests start themselves on
# free ports, and every Celery version. Nothing may be skipped here: what cannot run is a failure.
source "$(dirname "$0")/common.sh"

scripts/setup.sh
scripts/lint.sh --if-installed

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export GELERY_TEST_SERVERS=required GELERY_TEST_PYTHON=required
export GELERY_INTEROP_REPORT="$results/cells"
: >"$GELERY_INTEROP_REPORT"

packages=()
for package in $(go list ./...); do
	[[ $package == */interop* ]] || packages+=("$package")
done

# Interop keeps both cores busy with Python, which only makes the race detector's waits longer; the same code runs under
# it in the packages' own tests. Cached results would leave no cells, and say nothing of today's servers.
say "tests"
status=0
{
	limited 2400 go test -json -count=1 -race -timeout 20m "${packages[@]}" || touch "$results/failed"
	limited 1500 go test -json -count=1 -timeout 20m ./interop/... || touch "$results/failed"
} | go run ./scripts/testreport -cells "$GELERY_INTEROP_REPORT" -versions "$(IFS=,; echo "${CELERY_VERSIONS[*]}")" || status=$?
[ "$status" != 0 ] || [ ! -e "$results/failed" ] || die "go test failed" "it is not in the report, so it was not a test" "read what go test said above"
exit "$status"
