#!/usr/bin/env bash
# Faults in their long form, each with its ledger, and the table of what came of them: all of them, or those whose number
# begins like that. The soak breaks one thing after the other for GELERY_SOAK, on each broker.
#
#   scripts/faults.sh        every fault, within the hour, and a soak of ten minutes a broker
#   scripts/faults.sh F21    one
#   scripts/faults.sh F4     F41 to F45
#   scripts/faults.sh soak   the soak alone
source "$(dirname "$0")/common.sh"

fault=${1:-all}
case $fault in
all) tests='^Test(F[0-9]+[A-Z]|Soak$)' ;;
soak) tests='^TestSoak$' ;;
*)
	[[ $fault =~ ^F[0-9]{0,2}$ ]] || die "no such fault: $fault" "a fault is a number, F01 to F56, or soak" "make faults FAULT=F21"
	tests="^Test$fault[0-9]*[A-Z]"
	;;
esac

[ -e .venv ] || scripts/setup.sh

report=$(mktemp)
trap 'rm -f "$report"' EXIT
export GELERY_TEST_SERVERS=required GELERY_TEST_PYTHON=required GELERY_FAULTS_LONG=1 GELERY_FAULTS_REPORT=$report
export GELERY_SOAK=${GELERY_SOAK:-10m}

# One package after the other: what is measured is time, too.
status=0
limited 9000 go test -count=1 -p 1 -timeout 140m -run "$tests" ./internal/faults ./interop || status=$?
# The tests of interop look at results and at the broker, and write no line.
[ -s "$report" ] || exit "$status"
printf '\n| Fault | What was done (broker) | Faults | Sent | Done | Set aside | Lost | Extra runs (bound) | Recovery (bound) |\n'
printf '|---|---|---|---|---|---|---|---|---|\n'
sort "$report"
exit "$status"
