"""The daemon: configuration, command line, logs and signals around the library.

May live here: what only a process of our own may do, such as handling signals, setting up
logging, reading files and the environment, and ending the process. Must not: libvirt or SQL;
both are reached through the library. Nothing below this package imports it.
"""
