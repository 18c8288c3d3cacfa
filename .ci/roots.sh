# Roots: folders that each hold another Debian, made by mmdebstrap. Sourced by ./dev.
#
# May live here: making a root, entering it, and what the machine lends it. A root is made once
# and kept in the cache folder. Nothing outside that folder is written.

roots=${ASYNCHOST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/asynchost}/roots

# root_suite NAME: the Debian suite of a root, and the packages that it begins with.
root_suite() {
    case $1 in
    debian12) echo bookworm ;;
    debian13) echo trixie ;;
    sid) echo sid ;;
    # The packages are built and installed in copies of these, which nothing else enters.
    package12) echo bookworm ;;
    package13) echo trixie ;;
    # MariaDB and MySQL cannot both be installed in one Debian.
    mysql) echo sid mysql-server-core ;;
    *) die 2 "no such root: $1" ;;
    esac
}

# mirror_of LABEL: the address from which this machine gets Debian's packages of that label.
mirror_of() {
    # shellcheck disable=SC2016 # apt replaces these.
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Identifier: Packages' |
        awk -F '|' -v label="$1" '$1 == "Debian" && $2 == label { print $3; exit }'
}

# need_root NAME: make the root of that name if there is none yet, or end with status 69.
need_root() {
    local name=$1 suite include mirror security part=$roots/$1.part lines=()
    read -r suite include <<<"$(root_suite "$name")"
    if [[ -e $roots/$name/etc/debian_version ]]; then
        return
    fi
    if ((EUID != 0)); then
        die 2 "a root of another Debian is made and entered by root only: run ./dev as root"
    fi
    # mmdebstrap and apt fail at such paths, the latter without naming the cause. Spaces are fine.
    if [[ $roots == *[\"\\:$'\n']* || $roots != /* ]]; then
        die 2 "the cache folder $(printf %q "$roots") must be an absolute path without quotation" \
            "marks, backslashes, colons and line breaks; set ASYNCHOST_CACHE to another one"
    fi
    need_packages mmdebstrap debian-archive-keyring
    mirror=${ASYNCHOST_MIRROR:-$(mirror_of Debian)}
    if [[ -z $mirror ]]; then
        quietly apt-get -q update || die 69 "apt-get update failed; is there a network?"
        mirror=$(mirror_of Debian)
    fi
    [[ -n $mirror ]] || die 69 "apt on this machine knows no mirror of Debian;" \
        "set ASYNCHOST_MIRROR to the address of one"
    lines=("deb $mirror $suite main")
    security=$(mirror_of Debian-Security)
    if [[ -n $security && $suite != sid ]]; then
        lines+=("deb $security $suite-security main")
    fi
    say "making $roots/$name: Debian $suite"
    mkdir -p -- "$roots"
    # One process makes it; another one that needs it waits here.
    (
        flock 9
        if [[ ! -e $roots/$name/etc/debian_version ]]; then
            # What an interrupted run has left.
            rm -rf --one-file-system -- "$part"
            apt-config dump Acquire | grep -v -e IndexTargets -e Changelogs >"$roots/$name.apt"
            TMPDIR=$roots quietly mmdebstrap --variant=apt --aptopt="$roots/$name.apt" \
                --include="ca-certificates,git,mount${include:+,$include}" \
                "$suite" "$part" "${lines[@]}" &&
                mv -- "$part" "$roots/$name"
        fi
    ) 9>"$roots/$name.lock" || {
        # An interruption is no failure.
        (($? != 130)) || exit 130
        die 69 "could not make a root of Debian $suite"
    }
}

# pip_settings: the files that hold pip's settings on this machine.
pip_settings() {
    local file
    for file in /etc/pip.conf /etc/xdg/pip/pip.conf "${HOME:-/root}/.pip/pip.conf" \
        "${XDG_CONFIG_HOME:-${HOME:-/root}/.config}/pip/pip.conf" "${PIP_CONFIG_FILE:-}"; do
        [[ ! -f $file ]] || echo "$file"
    done
}

# pip_paths: the files and folders of this machine that pip's settings name.
pip_paths() {
    local path
    {
        pip_settings | xargs -r -d '\n' cat --
        env | grep '^PIP_' || true
    } | { grep -oE '(^|[ =/])/[^ /][^ ]*' || true; } | sed 's|^[ =/]||' | sort -u |
        while read -r path; do
            # The folder above an index ("…/simple") holds the files that the index links to.
            path=${path%/simple}
            [[ ! -e $path ]] || echo "$path"
        done
}

# lend ROOT: give a root the resolver, the certificates and pip's settings of this machine.
lend() {
    local root=$1 file inside
    {
        printf '%s\n' /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt
        pip_settings
        pip_paths
    } | while read -r file; do
        [[ -f $file ]] || continue
        inside=$root$file
        if [[ -n ${HOME:-} && $file == "$HOME"/* ]]; then
            inside=$root/root/${file#"$HOME"/}
        fi
        mkdir -p -- "${inside%/*}"
        # A link in the root would lead out of it.
        rm -f -- "$inside"
        cp -- "$file" "$inside"
    done
}

# enter_root ROOT COMMAND...: run a command in a root, as root of its own mount and process
# namespaces. The network is the machine's. All that the command has started ends with it.
enter_root() {
    local root=$1 name settings=() folders
    shift
    lend "$root"
    folders=$(pip_paths | while read -r name; do [[ ! -d $name ]] || echo "$name"; done)
    for name in ${!PIP_*} ${!ASYNCHOST_*} ${!SSL_CERT_*} CI REQUESTS_CA_BUNDLE CURL_CA_BUNDLE \
        http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY TERM NO_COLOR; do
        if [[ $name != ASYNCHOST_CACHE && -n ${!name+set} ]]; then
            settings+=("$name=${!name}")
        fi
    done
    # shellcheck disable=SC2016 # the inner shell replaces these.
    unshare --mount --pid --fork --kill-child --propagation private bash -c '
        set -euo pipefail
        root=$1 folders=$2
        shift 2
        mount --bind "$root" "$root"
        mkdir -p "$root/outside"
        while read -r folder; do
            [[ -n $folder ]] || continue
            mkdir -p "$root$folder"
            mount --bind "$folder" "$root$folder"
            mount -o remount,bind,ro "$root$folder"
        done <<<"$folders"
        cd "$root"
        mount -t proc proc proc
        mount --rbind /dev dev
        mount --rbind /sys sys
        mount -t tmpfs tmpfs run
        mount -t tmpfs -o mode=1777 tmpfs tmp
        pivot_root . outside
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        umount -l /outside
        cd /root
        status=0
        env -i "$@" || status=$?
        exit "$status"
    ' enter-root "$root" "$folders" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 "${settings[@]}" "$@"
}
