"""The libvirt edge: the only package that imports libvirt.

Admitted here: the event loop binding, calls into libvirt with their threads and deadlines,
what turns its answers into the core's records, and what keeps a host's connection alive.
Not admitted: totals, SQL, subscribers. Nothing outside this package sees a libvirt object.
"""
