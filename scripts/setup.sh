#!/usr/bin/env bash
# Installs what the full test run needs and the machine lacks: redis-server, rabbitmq-server, PostgreSQL, MariaDB, a headless
# Chromium, one Python environment for each Celery version the interop tests speak with, one for what monitors clusters, one each
# for RedBeat and django-celery-beat, and Celery's own integration suite. Safe to run again; then it takes less than a second.
#
#   PYTHON=/path/to/python3.11   the interpreter to make the environments from
source "$(dirname "$0")/common.sh"

# as_root COMMAND... runs a package manager's command, by sudo when we are not root and sudo needs no password.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
		sudo "$@"
	else
		return 126
	fi
}

# install_package WHAT APT DNF APK BREW installs a package by whichever package manager is here.
install_package() {
	local what=$1 apt=$2 dnf=$3 apk=$4 brew=$5 log rc=0
	log=$(mktemp)
	say "installing $what"
	if command -v apt-get >/dev/null; then
		{ as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$apt"; } >"$log" 2>&1 || rc=$?
	elif command -v dnf >/dev/null; then
		as_root dnf install -qy "$dnf" >"$log" 2>&1 || rc=$?
	elif command -v apk >/dev/null; then
		as_root apk add --quiet "$apk" >"$log" 2>&1 || rc=$?
	elif command -v brew >/dev/null; then
		brew install --quiet "$brew" >"$log" 2>&1 || rc=$?
	else
		die "$what is missing" "none of apt-get, dnf, apk, brew is here to install it" "install $what by hand and run this again"
	fi
	[ "$rc" != 126 ] || die "$what is missing" "only root may install it, and sudo is not here or asks for a password" "install $what as root and run this again"
	[ "$rc" = 0 ] || die "$what could not be installed" "$(tail -n 1 "$log")" "see $log, or install $what by hand and run this again"
	rm -f "$log"
}

# install_redis leaves no server running behind: a distribution's package may start its own, which the tests never use.
install_redis() {
	command -v "${REDIS_SERVER:-redis-server}" >/dev/null && return
	install_package redis-server redis-server redis redis redis
	command -v redis-server >/dev/null ||
		die "redis-server is not on the PATH" "the package was installed, but put it elsewhere" "set REDIS_SERVER to its path"
}

# find_rabbitmq tells where rabbitmq-server is, in the places internal/rabbitmqserver looks at.
find_rabbitmq() {
	local candidate
	for candidate in "${RABBITMQ_SERVER:-}" /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server \
		/opt/homebrew/sbin/rabbitmq-server /usr/local/sbin/rabbitmq-server /usr/sbin/rabbitmq-server; do
		[ -z "$candidate" ] || ! command -v "$candidate" || return 0
	done
	return 1
}

# install_rabbitmq leaves no broker running behind either, by whichever way the distribution's package started its own.
install_rabbitmq() {
	find_rabbitmq >/dev/null && return
	install_package rabbitmq-server rabbitmq-server rabbitmq-server rabbitmq-server rabbitmq
	if command -v systemctl >/dev/null && systemctl is-active --quiet rabbitmq-server 2>/dev/null; then
		as_root systemctl disable --now --quiet rabbitmq-server || true
	elif [ -x /etc/init.d/rabbitmq-server ] && as_root rabbitmqctl --quiet status >/dev/null 2>&1; then
		as_root /etc/init.d/rabbitmq-server stop >/dev/null 2>&1 || true
		as_root epmd -kill >/dev/null 2>&1 || true # refused while anybody else's node is registered
	fi
	find_rabbitmq >/dev/null ||
		die "rabbitmq-server is not where it is looked for" "the package was installed, but put it elsewhere" "set RABBITMQ_SERVER to the path of its start script"
}

# without_autostart COMMAND... installs a package whose server must not start by itself: Debian asks a file whether it may.
without_autostart() {
	local policy=/usr/sbin/policy-rc.d rc=0
	if [ "$(id -u)" != 0 ] || [ ! -d /etc/apt ] || [ -e "$policy" ]; then
		"$@"
		return
	fi
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
	("$@") || rc=$?
	rm -f "$policy"
	return "$rc"
}

# install_postgresql looks where internal/testservice does.
install_postgresql() {
	local candidate
	for candidate in "${POSTGRES_SERVER:-}" postgres /usr/lib/postgresql/*/bin/postgres; do
		[ -z "$candidate" ] || ! command -v "$candidate" >/dev/null || return 0
	done
	without_autostart install_package PostgreSQL postgresql postgresql-server postgresql postgresql
}

# install_mariadb looks where internal/testservice does.
install_mariadb() {
	local candidate
	for candidate in "${MARIADB_SERVER:-}" mariadbd /usr/sbin/mariadbd /usr/libexec/mariadbd; do
		[ -z "$candidate" ] || ! command -v "$candidate" >/dev/null || return 0
	done
	without_autostart install_package MariaDB mariadb-server mariadb-server mariadb mariadb
}

# install_chromium looks where interop/flower does. Debian has the browser without a window as a package of its own.
install_chromium() {
	local candidate
	for candidate in "${CHROMIUM:-}" chromium-headless-shell headless-shell chromium chromium-browser google-chrome; do
		[ -z "$candidate" ] || ! command -v "$candidate" >/dev/null || return 0
	done
	install_package Chromium chromium-headless-shell chromium-headless chromium chromium
}

# find_python prints an interpreter that all the pinned Celery versions and celery-exporter run on.
find_python() {
	local candidate
	for candidate in ${PYTHON:-python3.11 python3.12 python3}; do
		if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
			command -v "$candidate"
			return
		fi
	done
	return 1
}

# make_venv builds one environment, of a name. The stamp names what it was built from, so that a changed pin or a newer Python
# rebuilds it and a build that was cut off is never taken for a whole one.
make_venv() {
	local name=$1 python=$2 dir log
	dir=$(cd -P .venv && pwd)/$name # where it stays: its programs know their path
	log=$dir.log
	rm -rf "$dir"
	"$python" -m venv "$dir" >"$log" 2>&1 &&
		"$dir/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$(requirements "$name")" >>"$log" 2>&1 &&
		stamp "$name" "$python" >"$dir/stamp" && rm -f "$log"
}

requirements() { echo "interop/python/requirements/$1.txt"; }

# stamp is also bound to the folder: a virtual environment that was moved does not run. A .venv that is a link to another
# checkout's is as that checkout made it.
stamp() { { (cd -P .venv/.. && pwd) && "$2" --version && cat "$(requirements "$1")"; } | sha256; }

install_venvs() {
	local python name missing=() failed=()
	if ! python=$(find_python); then
		[ -z "${PYTHON:-}" ] || die "$PYTHON cannot be used" "it is not Python 3.11 or 3.12 with venv and ensurepip" "set PYTHON to another one, or unset it"
		install_package "Python 3" python3-venv python3 python3 python@3.11
		python=$(find_python) || die "no fitting Python is here" "Celery 5.2 to 5.6 and celery-exporter together need Python 3.11 or 3.12 with venv" "set PYTHON to such an interpreter"
	fi
	mkdir -p .venv
	for name in "${CELERY_VERSIONS[@]/#/celery-}" monitoring redbeat django; do
		[ "$(cat ".venv/$name/stamp" 2>/dev/null)" = "$(stamp "$name" "$python")" ] || missing+=("$name")
	done
	[ ${#missing[@]} != 0 ] || return 0

	say "making Python environments: ${missing[*]}"
	# Two at a time: more only fight for the disk and the cores of a small machine.
	export python
	export -f make_venv requirements stamp sha256
	printf '%s\n' "${missing[@]}" | xargs -n 1 -P 2 bash -c 'make_venv "$1" "$python"' _ || true
	for name in "${missing[@]}"; do
		[ -f ".venv/$name/stamp" ] || failed+=("$name")
	done
	[ ${#failed[@]} = 0 ] || die "no Python environment ${failed[*]}" \
		"$(grep -hm 1 ERROR ".venv/${failed[0]}.log" || tail -n 1 ".venv/${failed[0]}.log")" "see .venv/${failed[0]}.log, then run this again"
}

# install_suites takes Celery's integration suite from its source packages, which alone have it, and what runs it: folders
# that any of the environments can have on its path.
install_suites() {
	local python=.venv/celery-5.6/bin/python version pins log=.venv/suite.log
	for version in tools "${SUITE_VERSIONS[@]}"; do
		pins=interop/conformance/requirements/$([ "$version" = tools ] || echo celery-)$version.txt
		[ "$(cat ".venv/suite-$version/stamp" 2>/dev/null)" != "$(sha256 <"$pins")" ] || continue
		say "fetching the suite: $version"
		install_suite "$version" "$pins" >"$log" 2>&1 ||
			die "no conformance suite: $version" "$(grep -m 1 ERROR "$log" || tail -n 1 "$log")" "see $log, then run this again"
	done
	rm -f "$log"
}

install_suite() {
	local version=$1 pins=$2 dir=.venv/suite-$1 source
	rm -rf "$dir" && mkdir "$dir" || return
	if [ "$version" = tools ]; then
		"$python" -m pip install --disable-pip-version-check --no-deps --target "$dir" --requirement "$pins" || return
	else
		"$python" -m pip download --disable-pip-version-check --no-binary :all: --no-deps --dest "$dir" --requirement "$pins" || return
		source=$(basename "$dir"/*.tar.gz .tar.gz)
		tar -xzf "$dir/$source.tar.gz" -C "$dir" --strip-components=1 "$source/t/__init__.py" "$source/t/integration" || return
		rm "$dir/$source.tar.gz"
	fi
	sha256 <"$pins" >"$dir/stamp"
}

command -v go >/dev/null || die "go is missing" "Gelery is built with Go 1.26 or newer" "install Go and put it on the PATH"
install_redis
install_rabbitmq
install_postgresql
install_mariadb
install_chromium
install_venvs
install_suites
