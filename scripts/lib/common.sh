# Shared by the commands in scripts/: where things are, how to say something, and how to build.
# Sourced, not run. After it: $ROOT (the clone), $CACHE (kept between runs; the only place outside the clone, beside the
# package manager, that the commands write to).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/migration-router

say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }
die() {
	complain "$(basename "$0"): $*"
	exit 1
}

# build NAME LABEL [meson options]: configures build-NAME once (again when the options change) and compiles it. What the
# tools say is kept in build-NAME/log and shown only when something fails. BUILD_TARGETS: only these (ninja's names).
build() {
	local dir="$ROOT/build-$1" label=$2 want
	shift 2
	want="$(printf '%s\n' "CC=${CC:-}" "$@")"
	if [ ! -f "$dir/build.ninja" ] || [ "$(cat "$dir/options" 2>/dev/null)" != "$want" ]; then
		rm -rf "$dir"
		mkdir -p "$dir"
		if ! meson setup "$dir" "$ROOT" "$@" >"$dir/log" 2>&1; then
			tail -n 40 "$dir/log" >&2
			complain "could not configure $label (meson setup $*)"
			return 1
		fi
		printf '%s\n' "$want" >"$dir/options"
	fi
	# shellcheck disable=SC2086  # a list
	if ! ninja -C "$dir" -j "$(nproc)" ${BUILD_TARGETS:-} >"$dir/log" 2>&1; then
		grep -E -A4 'error:|warning:|undefined reference|FAILED' "$dir/log" | head -n 60 >&2
		complain "could not build $label: $dir/log"
		return 1
	fi
}
