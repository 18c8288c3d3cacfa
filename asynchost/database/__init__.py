"""The database edge: keeps the table ``compute_nodes`` true.

The rule of admission: whatever imports aiomysql, knows SQL, or knows a column's name lives
here, and nothing else does. The core is imported from here; the hypervisor's edge and the
service are not, and no module outside imports aiomysql.

Three layers, each importing only those above it. Pure: ``url``, ``classify``, ``schema``,
``refusal``, ``settings``, ``status``, ``rows``, ``columns``, ``statements``, ``identity``,
``acknowledged``, ``foreign_edits``, ``records``, ``vigil``, ``attachment``, ``pending``, ``plan``,
``rounds``; and ``tls``, which reads certificates. Acting through one session: ``driver``,
``login``, ``session``, ``endpoints``, ``layout``, ``inspection``, ``finding``, ``claim``,
``claims``, ``lane``, ``dry_lane``, ``checkup``. Deciding when: ``alarm``,
``outage``, ``worker``, ``writer``. ``private_server`` stands beside them.
"""

from asynchost.database.attachment import Attachment
from asynchost.database.foreign_edits import OnForeignEdit
from asynchost.database.inspection import TableState, apply_schema
from asynchost.database.private_server import PrivateMariaDB
from asynchost.database.settings import WhenFenced, WriterSettings
from asynchost.database.status import WriterStatus
from asynchost.database.writer import ComputeNodeWriter

__all__ = [
    "Attachment",
    "ComputeNodeWriter",
    "OnForeignEdit",
    "PrivateMariaDB",
    "TableState",
    "WhenFenced",
    "WriterSettings",
    "WriterStatus",
    "apply_schema",
]
