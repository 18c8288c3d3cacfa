"""Those that are compared, each run as a process of its own by ``python -m benchmarks.contenders``.

May live here: asynchost as its users use it, and the plainest code that does a part of its work.
Must not: judging; that is the benchmarks' matter.
"""
