#!/usr/bin/env bash
# Format, go vet and golangci-lint. One golangci-lint version for everybody, so that nobody's lint differs from CI's.
#
#   --if-installed   use golangci-lint where it is, do not install it
source "$(dirname "$0")/common.sh"

VERSION=2.15.0

# linter prints the path of a golangci-lint of our version.
linter() {
	local candidate
	for candidate in .bin/golangci-lint golangci-lint "$(go env GOPATH)/bin/golangci-lint"; do
		if "$candidate" version 2>/dev/null | grep -q "version v\?$VERSION "; then
			command -v "$candidate"
			return
		fi
	done
	return 1
}

say "gofmt"
unformatted=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 gofmt -l)
[ -z "$unformatted" ] || die "some files are not formatted" "$(echo $unformatted)" "gofmt -w $(echo $unformatted)"

say "go vet"
limited 600 go vet ./...

if ! found=$(linter); then
	[ "${1:-}" != --if-installed ] || exit 0
	say "installing golangci-lint $VERSION into .bin"
	mkdir -p .bin
	GOBIN="$PWD/.bin" limited 1200 go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$VERSION" ||
		die "golangci-lint $VERSION could not be built" "go install said so above" "run it again, or put that version on the PATH"
	found=.bin/golangci-lint
fi
say "golangci-lint $VERSION"
limited 900 "$found" run --allow-parallel-runners ./... # another checkout may be linted at the same time
