#!/usr/bin/env bash
# The full test run: installs what is missing, runs every test against real servers that the tests start themselves on
# free ports, and every Celery version. Nothing may be skipped here: what cannot run is a failure.
source "$(dirname "$0")/common.sh"

scripts/setup.sh

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
export GELERY_TEST_SERVERS=required GELERY_TEST_PYTHON=required
# What is left to look at, of this run alone: Flower's pages, and the comparisons with Python.
output=${CI_OUTPUT_DIR:-$PWD/.cache/output}
rm -rf "$output/screenshots"
mkdir -p "$output"
output=$(cd "$output" && pwd) # tests run in their own folders
export GELERY_TEST_SCREENSHOTS="${GELERY_TEST_SCREENSHOTS:-$output/screenshots}"
export GELERY_INTEROP_REPORT="$output/interop-cells.tsv"
: >"$GELERY_INTEROP_REPORT"

# Two groups run without the race detector. Interop keeps both cores busy with Python, and the same code runs under the
# detector in its own tests. internal/faults runs workers under a memory limit, which the detector alone would exceed.
plain=() raced=()
for package in $(go list ./...); do
	case $package in
	*/interop* | */internal/faults) plain+=("$package") ;;
	*) raced+=("$package") ;;
	esac
done

# Cached results would leave no cells and say nothing of today's servers, hence -count=1.
say "tests"
status=0
{
	limited 2400 go test -json -count=1 -race -timeout 20m "${raced[@]}" || touch "$results/failed"
	limited 1500 go test -json -count=1 -timeout 20m "${plain[@]}" || touch "$results/failed"
	# The benchmarks are a module of their own, which ./... does not reach.
	limited 600 go -C benchmarks vet ./... || touch "$results/failed"
	limited 600 go -C benchmarks test -json -count=1 -timeout 9m ./... || touch "$results/failed"
} | go run ./scripts/testreport -again "$results/again" -cells "$GELERY_INTEROP_REPORT" -versions "$(IFS=,; echo "${CELERY_VERSIONS[*]}")" || status=$?

# One to three tests that failed by themselves, with no panic, race, leak or lost task: a machine that was busy at the wrong
# moment, or a test that is not sound. Each must pass three times alone, and is named, so that somebody mends it.
if [ "$status" = 1 ] && [ -s "$results/again" ]; then
	status=0
	while read -r package test; do
		say "again, three times: $package $test"
		detector=-race
		case " ${plain[*]} " in *" $package "*) detector= ;; esac
		directory=.
		case $package in */benchmarks/*) directory=benchmarks detector= ;; esac
		limited 900 go -C "$directory" test $detector -json -count=3 -timeout 14m -run "^$test\$" "$package" </dev/null |
			go run ./scripts/testreport || status=1
	done <"$results/again"
	[ "$status" != 0 ] || say "unstable, failed once and passed three times: $(tr '\n' ';' <"$results/again")"
	rm -f "$results/failed"
fi
[ "$status" != 0 ] || [ ! -e "$results/failed" ] || die "go test failed" "it is not in the report, so it was not a test" "read what go test said above"

# Last, because a finding of the linter must not keep anybody from seeing a failing test.
[ "$status" != 0 ] || scripts/lint.sh --if-installed || status=$?
exit "$status"
