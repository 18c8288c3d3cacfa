"""The database edge: keeps the table ``compute_nodes`` true.

The rule of admission: whatever imports aiomysql, knows SQL, or knows a column's name lives
here, and nothing else does. The core is imported from here; the hypervisor's edge and the
service are not, and no module outside imports aiomysql.

Three layers, each importing only those above it. Pure: ``url``, ``classify``, ``schema``,
``refusal``, ``settings``, ``rows``, ``statements``, ``identity``, ``acknowledged``,
``attachment``. Acting through one session: ``session``, ``inspection``, ``claim``, ``lane``.
Deciding when: ``alarm``, ``worker``, ``writer``. ``private_server`` stands beside them.
"""

from asynchost.database.attachment import Attachment
from asynchost.database.inspection import TableState, apply_schema
from asynchost.database.private_server import PrivateMariaDB
from asynchost.database.settings import WriterSettings
from asynchost.database.writer import ComputeNodeWriter

__all__ = [
    "Attachment",
    "ComputeNodeWriter",
    "PrivateMariaDB",
    "TableState",
    "WriterSettings",
    "apply_schema",
]
