# Building the Debian package in roots of Debian 12 and 13. Sourced by ./dev, after .ci/roots.sh.
#
# May live here: building, and the look of lintian at what was built. The package is in
# dist/debian12 or dist/debian13 then.

# deb [NAME...]: build the package for debian12 and debian13, or for those named.
deb() {
    local name
    (($# > 0)) || set -- debian12 debian13
    for name in "$@"; do
        [[ $name == debian12 || $name == debian13 ]] ||
            die 2 "no such Debian: $name; there are: debian12 debian13"
    done
    ((EUID == 0)) || die 2 "a package is built in a root of its Debian, by root only: sudo ./dev deb"
    for name in "$@"; do
        deb_build "$name"
    done
}

# deb_copy NAME ROOT: a copy of the root that nothing has changed yet.
deb_copy() {
    local name=$1 root=$2
    need_root "package${name#debian}"
    rm -rf --one-file-system -- "$root.part"
    cp -a --reflink=auto -- "$roots/package${name#debian}" "$root.part"
    mv -- "$root.part" "$root"
}

# deb_build NAME: build, look at the result, and put it into dist/NAME.
deb_build() {
    local name=$1 root=$roots/build-$1 tree=/srv/asynchost
    [[ -e $root/etc/debian_version ]] || deb_copy "$name" "$root"
    exec 7>"$root.lock"
    flock 7
    rm -rf -- "$root/srv"
    copy_tree "$root$tree"
    cp -r -- "$root$tree/contrib/debian" "$root$tree/debian"
    cp -- contrib/systemd/asynchost.service "$root$tree/debian/asynchost.service"
    say "$name: installing what the build takes"
    # shellcheck disable=SC2016 # the root's own shell replaces these.
    quietly enter_root "$root" DEBIAN_FRONTEND=noninteractive bash -c '
        cd "$1"
        # What it takes may be there, and no network.
        if ! dpkg-checkbuilddeps 2>/dev/null || ! command -v lintian >/dev/null; then
            apt-get -q update
            apt-get -q -y --no-install-recommends build-dep "$1"
            apt-get -q -y --no-install-recommends install lintian
        fi' sh "$tree" || die 1 "$name: could not install what the build takes; is there a network?"
    say "$name: building"
    quietly enter_root "$root" DEB_BUILD_OPTIONS=noddebs bash -c \
        'cd "$1" && dpkg-buildpackage --build=binary --no-sign' sh "$tree" ||
        die 1 "$name: the package could not be built"
    say "$name: looking at it with lintian"
    enter_root "$root" bash -c \
        'lintian --allow-root --fail-on error,warning --tag-display-limit 0 /srv/*.changes' >&2 ||
        die 1 "$name: lintian found something"
    mkdir -p -- "dist/$name"
    rm -f -- "dist/$name"/*.deb
    cp -- "$root"/srv/*.deb "dist/$name/"
    ls -l -- "dist/$name"/*.deb >&2
    exec 7>&-
}

# need_packages_and_roots: the packages, and for each a root with systemd and MariaDB to try it in.
need_packages_and_roots() {
    local name
    deb
    for name in debian12 debian13; do
        deb_try_root "$name"
    done
    export ASYNCHOST_PACKAGE_ROOTS=$roots
}

# deb_try_root NAME: what the package depends on, systemd and MariaDB, and nothing of asynchost's.
deb_try_root() {
    local name=$1 root=$roots/try-$1
    [[ ! -e $root/etc/debian_version ]] || return 0
    say "$name: making a root to try the package in"
    deb_copy "$name" "$root.new"
    # shellcheck disable=SC2016 # the root's own shell replaces these.
    quietly enter_root "$root.new" DEBIAN_FRONTEND=noninteractive bash -c '
        printf "#!/bin/sh\nexit 101\n" >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        apt-get -q update
        apt-get -q -y --no-install-recommends install \
            systemd systemd-sysv dbus mariadb-server python3 libvirt0 iproute2 procps
        rm /usr/sbin/policy-rc.d' || die 1 "$name: could not install systemd and MariaDB"
    mv -- "$root.new" "$root"
}
