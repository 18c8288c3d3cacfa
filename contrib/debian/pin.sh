#!/bin/bash
# Write requirements.txt and build-requirements.txt anew, from .ci/constraints.txt: the files that a
# package is built from, each with its hash. To be run after a version has moved.
#
# Wheels are taken for each Python of a supported Debian; libvirt-python has none and is compiled.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
constraints=$here/../../.ci/constraints.txt
pip=(python3 -m pip --disable-pip-version-check)
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT

# pinned NAME: its line in the constraints.
pinned() { grep -iE "^$1==" "$constraints"; }

# pin FILE NAME...: write the requirements and the hashes of their files.
pin() {
    local file=$1 name line python
    shift
    {
        echo "# Made by pin.sh. Each file that may be installed has its hash here."
        for name in "$@"; do
            line=$(pinned "$name")
            rm -rf -- "${folder:?}"/*
            if [[ $name == libvirt-python ]]; then
                "${pip[@]}" download -q -d "$folder" --no-deps --no-binary=:all: "$line" >&2
            else
                for python in 3.11 3.13; do
                    "${pip[@]}" download -q -d "$folder" --no-deps --only-binary=:all: \
                        --python-version "$python" --platform manylinux2014_x86_64 \
                        --platform manylinux_2_17_x86_64 --platform any "$line" >&2
                done
            fi
            echo "$line \\"
            (cd -- "$folder" && sha256sum -- * | sort -u) |
                sed -E 's/^([0-9a-f]{64}) .*/    --hash=sha256:\1 \\/' | sed '$ s/ \\$//'
        done
    } >"$here/$file"
}

pin requirements.txt aiomysql PyMySQL structlog click cryptography cffi pycparser libvirt-python
pin build-requirements.txt setuptools hatchling packaging pathspec pluggy trove-classifiers
