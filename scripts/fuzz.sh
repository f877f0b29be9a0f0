#!/usr/bin/env bash
# Runs every fuzz target, one after the other: go test can fuzz only one at a time.
#
#   FUZZTIME=2m   how long each
#   PKG=./...     where to look for them
source "$(dirname "$0")/common.sh"

failed=()
found=0
for package in $(go list "${PKG:-./...}"); do
	# Most packages have none; do not compile those only to hear it.
	grep -qs '^func Fuzz' "$(go list -f '{{.Dir}}' "$package")"/*_test.go || continue
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz'); do
		found=$((found + 1))
		say "$target in ${package#github.com/gelery/gelery/} for ${FUZZTIME:-2m}"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-2m}" -fuzzminimizetime 5s -timeout 24h "$package" || failed+=("$package $target")
	done
done
[ "$found" != 0 ] || die "no fuzz target found" "no package of ${PKG:-./...} has a func Fuzz… in a test file" "choose another PKG"
[ ${#failed[@]} = 0 ] || die "${#failed[@]} of $found fuzz targets found something" "${failed[*]}" "the input is in that package's testdata/fuzz: fix the bug and commit the input as a test"
say "$found fuzz targets, nothing found"
