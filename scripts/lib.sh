# What the scripts share: saying something, and the system's package manager. To be sourced.

say() { printf '%s\n' "tollgate: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        say "not root, and no sudo: cannot run $*"; return 1
    fi
}

install_packages() { # one list per package manager: apt, dnf, apk, brew; empty where there is none
    if command -v apt-get >/dev/null; then
        [ -n "$1" ] || return 1
        say "installing $1"
        as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $1
    elif command -v dnf >/dev/null; then [ -n "$2" ] || return 1; say "installing $2"; as_root dnf install -y $2
    elif command -v apk >/dev/null; then [ -n "$3" ] || return 1; say "installing $3"; as_root apk add $3
    elif command -v brew >/dev/null; then [ -n "$4" ] || return 1; say "installing $4"; brew install $4
    else return 1
    fi
}
