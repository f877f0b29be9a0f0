# Shared by the scripts beside it; sourced, not run. It stands in the repository's root afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CELERY_VERSIONS=(5.2 5.3 5.4 5.5 5.6)
SUITE_VERSIONS=(5.2 5.4 5.6) # whose integration suite is run

# die WHAT WHY DO ends the script with an error a person can act on.
die() {
	printf '%s\n  why: %s\n  do:  %s\n' "$1" "$2" "$3" >&2
	exit 1
}

say() { printf '== %s\n' "$*"; }

# sha256 prints the hash of standard input. Linux and macOS name the tool differently.
sha256() {
	if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1
}

# limited SECONDS COMMAND... runs a command under a time limit where the machine has timeout(1) (a stock macOS has
# not). The command is asked first and killed 30 seconds later.
limited() {
	local seconds=$1
	shift
	if command -v timeout >/dev/null; then
		timeout --kill-after=30 "$seconds" "$@"
	else
		"$@"
	fi
}
