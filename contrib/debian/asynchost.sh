#!/bin/sh
# The command of the package: its own Python, which looks at no variable and no folder of the user's.
exec /usr/lib/asynchost/bin/python3 -I /usr/lib/asynchost/asynchost "$@"
