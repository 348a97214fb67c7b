# Installs what is missing, and nothing when nothing is. Sourced after common.sh.
#
# A need is written probe=package, the probe being cmd:NAME (a program), pc:NAME (a pkg-config module) or file:PATH. Probing
# instead of asking the package manager keeps hand-installed tools in use, and makes a second run cost milliseconds.

NEEDS_BUILD="cmd:cc=gcc cmd:pkg-config=pkg-config cmd:meson=meson cmd:ninja=ninja-build
 file:/usr/include/stdlib.h=libc6-dev
 pc:libmicrohttpd=libmicrohttpd-dev pc:libcurl=libcurl4-openssl-dev pc:libcjson=libcjson-dev pc:hiredis=libhiredis-dev pc:openssl=libssl-dev
 pc:librabbitmq=librabbitmq-dev pc:libpq=libpq-dev pc:libprotobuf-c=libprotobuf-c-dev cmd:protoc-c=protobuf-c-compiler
 pc:sqlite3=libsqlite3-dev pc:yaml-0.1=libyaml-dev pc:libuv=libuv1-dev pc:libsodium=libsodium-dev pc:zlib=zlib1g-dev
 file:/usr/share/javascript/chart.js/chart.min.js=libjs-chart.js"
NEEDS_RUN="cmd:python3=python3 cmd:pdftotext=poppler-utils"
NEEDS_TEST="cmd:clang=clang cmd:clang-format=clang-format pc:cmocka=libcmocka-dev cmd:openssl=openssl cmd:curl=curl cmd:setarch=util-linux
 cmd:redis-server=redis-server cmd:rabbitmq-server=rabbitmq-server file:/usr/lib/postgresql=postgresql cmd:faketime=faketime cmd:promtool=prometheus"
NEEDS_BROWSER="cmd:chromium=chromium cmd:chromedriver=chromium-driver"
NEEDS_BENCH="cmd:wrk=wrk cmd:nginx=nginx-light cmd:haproxy=haproxy cmd:taskset=util-linux"

probe() {
	case $1 in
	cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 || [ -x "/usr/sbin/${1#cmd:}" ] ;;
	pc:*) command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "${1#pc:}" ;;
	file:*) [ -e "${1#file:}" ] ;;
	esac
}

missing_packages() {
	local need
	for need in "$@"; do
		probe "${need%%=*}" || printf '%s\n' "${need#*=}"
	done | sort -u
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt_install() {
	# RUNLEVEL=1 keeps packages that bring a service (nginx, haproxy) from starting it.
	as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 -qq -y \
		--no-install-recommends install "$@" </dev/null
}

# install_packages PACKAGE…: the package lists are refreshed once, and only when the first try did not find everything.
install_packages() {
	[ $# -gt 0 ] || return 0
	command -v apt-get >/dev/null 2>&1 || die "missing, and there is no apt-get to install it: $*"
	[ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || die "missing, and installing needs root or sudo: apt-get install $*"
	say "installing: $*"
	local log="$CACHE/apt.log"
	mkdir -p "$CACHE"
	if ! apt_install "$@" >"$log" 2>&1; then
		as_root apt-get -qq update </dev/null >"$log" 2>&1 || true
		if ! apt_install "$@" >>"$log" 2>&1; then
			tail -n 20 "$log" >&2
			die "could not install: $*"
		fi
	fi
}

# need NEED…: installs the packages of the needs that are not met.
need() {
	local packages
	packages=$(missing_packages "$@")
	# shellcheck disable=SC2086  # a list
	install_packages $packages
}

# clang's own runtime (sanitizers, libFuzzer) is a package of its own, with the version in its name.
need_clang_runtime() {
	local archive
	archive=$(clang -print-file-name=libclang_rt.fuzzer-x86_64.a 2>/dev/null)
	[ "$(uname -m)" = aarch64 ] && archive=$(clang -print-file-name=libclang_rt.fuzzer-aarch64.a)
	[ -e "$archive" ] && return 0
	ls "$(clang -print-resource-dir)"/lib/*/libclang_rt.fuzzer*.a >/dev/null 2>&1 && return 0
	ls "$(clang -print-resource-dir)"/lib/*/*/libclang_rt.fuzzer*.a >/dev/null 2>&1 && return 0
	install_packages "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

# python_env REQUIREMENTS…: makes a virtual environment with the packages of these files in the cache folder, once per Python and files.
# Sets PYTHON to its interpreter. Works with whatever python3 comes first in PATH, as long as it can make environments.
python_env() {
	local base key dir file files=()
	for base in python3 /usr/bin/python3; do
		"$base" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && break
		base=
	done
	if [ -z "$base" ]; then
		install_packages python3 python3-venv
		base=/usr/bin/python3
	fi
	key=$( (
		"$base" -c 'import sys; print(sys.version, sys.base_prefix)'
		cat "$@"
	) | cksum | cut -d' ' -f1)
	dir="$CACHE/python-$key"
	PYTHON="$dir/bin/python"
	mkdir -p "$CACHE"
	(
		flock 9
		[ -e "$dir/complete" ] && "$PYTHON" -c '' 2>/dev/null && exit 0
		rm -rf "$dir"
		say "making a Python environment (${*##*/})"
		for file in "$@"; do files+=(-r "$file"); done
		"$base" -m venv "$dir" && "$PYTHON" -m pip install -q --disable-pip-version-check "${files[@]}" \
			</dev/null && touch "$dir/complete"
	) 9>"$CACHE/python.lock" || die "could not make a Python environment in $dir"
}

# temporal_server: the Temporal development server (213 MB), built once into the cache folder; 5 to 8 minutes. Sets and exports
# TEMPORAL_CLI to the program, or TEMPORAL_MISSING to why there is none: then its tests are skipped, and say so.
TEMPORAL_CLI_VERSION=v1.5.1
temporal_server() {
	local bin="$CACHE/temporal-$TEMPORAL_CLI_VERSION" log="$CACHE/temporal.log"
	mkdir -p "$CACHE"
	if [ -x "${TEMPORAL_CLI:-}" ]; then
		:
	elif command -v temporal >/dev/null 2>&1; then
		TEMPORAL_CLI=$(command -v temporal)
	elif [ -x "$bin/temporal" ]; then
		TEMPORAL_CLI="$bin/temporal"
	elif ! command -v go >/dev/null 2>&1; then
		TEMPORAL_MISSING="no Temporal server: go is not installed to build it"
	else
		(
			flock 9
			[ -x "$bin/temporal" ] && exit 0
			say "building the Temporal development server (once, 5 to 8 minutes)"
			GOTOOLCHAIN=local GOBIN="$bin" timeout 1800 go install -ldflags='-s -w' \
				"github.com/temporalio/cli/cmd/temporal@$TEMPORAL_CLI_VERSION" >"$log" 2>&1 </dev/null
		) 9>"$CACHE/temporal.lock"
		if [ -x "$bin/temporal" ]; then
			TEMPORAL_CLI="$bin/temporal"
		else
			TEMPORAL_MISSING="no Temporal server: $(tail -n 1 "$log" | cut -c 1-200)"
		fi
	fi
	export TEMPORAL_CLI="${TEMPORAL_CLI:-}" TEMPORAL_MISSING="${TEMPORAL_MISSING:-}"
}

# browser: a headless Chromium with its driver, and axe-core (accessibility rules, one file) in the cache folder. What cannot be had is
# told in BROWSER_MISSING and AXE_MISSING: then its tests are skipped, and say so.
AXE_VERSION=4.10.3
browser() {
	local log="$CACHE/browser.log" packages
	mkdir -p "$CACHE"
	# shellcheck disable=SC2086  # lists
	packages=$(missing_packages $NEEDS_BROWSER)
	# shellcheck disable=SC2086  # a list
	if [ -n "$packages" ] && ! (install_packages $packages) >"$log" 2>&1; then
		BROWSER_MISSING="no browser: $(tail -n 1 "$log" | cut -c 1-200)"
	fi
	AXE="$CACHE/axe-core-$AXE_VERSION/axe.min.js"
	(
		flock 9
		[ -e "$AXE" ] && exit 0
		command -v npm >/dev/null 2>&1 || exit 1
		mkdir -p "$CACHE/axe-core-$AXE_VERSION" && cd "$CACHE/axe-core-$AXE_VERSION" &&
			timeout 120 npm pack --silent "axe-core@$AXE_VERSION" >>"$log" 2>&1 </dev/null &&
			tar -xzf ./*.tgz --strip-components=1 package/axe.min.js && rm -f ./*.tgz
	) 9>"$CACHE/axe.lock" || AXE_MISSING="no axe-core: npm is not installed, or could not fetch it"
	export AXE BROWSER_MISSING="${BROWSER_MISSING:-}" AXE_MISSING="${AXE_MISSING:-}"
}
