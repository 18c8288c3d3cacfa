"""The texts of the schema: the published table, the companion, the rights."""

from asynchost.database import schema


def test_the_table_has_its_21_columns_in_order_and_one_key() -> None:
    """As it was published: no unique key beside id."""
    text = schema.compute_nodes_ddl()
    assert len(schema.COMPUTE_NODES_COLUMNS) == 21
    positions = [text.index(f"`{column}` ") for column in schema.COMPUTE_NODES_COLUMNS]
    assert positions == sorted(positions)
    assert text.count("KEY") == 1
    assert "`service_id` int(11) NOT NULL" in text


def test_the_companion_table_has_its_keys() -> None:
    """One row for each host, one host for each row."""
    text = schema.fence_ddl()
    assert "UNIQUE KEY `asynchost_fence_node` (`node`, `service`)" in text
    assert "UNIQUE KEY `asynchost_fence_cn_id` (`cn_id`)" in text
    assert text.endswith(
        "ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci"
    )


def test_applying_says_if_not_exists() -> None:
    """Two that apply at once do not trip over each other."""
    for table in (schema.TABLE, schema.FENCE):
        assert schema.ddl(table, if_not_exists=True).startswith(
            f"CREATE TABLE IF NOT EXISTS `{table}`"
        )
        assert schema.ddl(table).startswith(f"CREATE TABLE `{table}`")


def test_the_grants_name_columns_and_never_delete() -> None:
    """Least privilege: identity and creation cannot be updated, nothing can be deleted."""
    nodes, fence = schema.grant_statements("no`va", "'me'@'%'")
    assert nodes.startswith("GRANT SELECT (`id`, ")
    assert " ON `no``va`.`compute_nodes` TO 'me'@'%'" in nodes
    updated = nodes[nodes.index("UPDATE (") :]
    for column in ("id", "service_id", "created_at", "deleted_at"):
        assert f"`{column}`" not in updated
    assert fence.startswith("GRANT SELECT (`node`, ")
    assert fence.endswith(" ON `no``va`.`asynchost_fence` TO 'me'@'%'")
    assert "`cn_id`" not in fence[fence.index("INSERT (") : fence.index("UPDATE (")]
    assert "DELETE" not in nodes + fence


def test_each_probe_changes_nothing() -> None:
    """WHERE FALSE stands at the end of each."""
    probes = schema.probes()
    assert len(probes) == 6
    for _, statement in probes:
        assert statement.endswith("WHERE FALSE")


def test_a_column_can_be_added() -> None:
    """The remedy for one that is missing."""
    assert schema.add_column(schema.TABLE, "running_vms") == (
        "ALTER TABLE `compute_nodes` ADD COLUMN `running_vms` int(11) default NULL"
    )
    assert "varchar(16) NOT NULL" in schema.add_column(schema.FENCE, "state")
