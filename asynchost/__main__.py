"""``python -m asynchost`` is the command ``asynchost``."""

from asynchost.service.__main__ import main

if __name__ == "__main__":
    main()
