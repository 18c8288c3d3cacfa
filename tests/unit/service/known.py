"""Accounts as a daemon gives them, for the tests of what is made of them."""

from typing import Any

from asynchost import MonitorSettings, Policy
from asynchost.service.accounts import Account

ROW = {
    "vcpus": 8,
    "memory_mb": 4096,
    "hypervisor_type": "QEMU",
    "hypervisor_version": 7002000,
    "cpu_info": '{"arch": "x86_64", "features": ["aes", "avx"]}',
    "vcpus_used": 3,
    "memory_mb_used": 192,
    "free_ram_mb": 3904,
    "running_vms": 2,
    "current_workload": 0,
    "local_gb": 100,
    "local_gb_used": 40,
    "free_disk_gb": 60,
    "disk_available_least": None,
    "hypervisor_hostname": "node1",
}


def cost(vcpus: int = 0, memory_kib: int = 0, running: int = 0) -> dict[str, int]:
    """A usage as plain values."""
    return {
        "vcpus_used": vcpus,
        "memory_kib_used": memory_kib,
        "running_vms": running,
        "current_workload": 0,
    }


def domain(name: str | None, *, counts: bool = True, **values: Any) -> dict[str, Any]:
    """A domain of two vCPUs and 128 MiB, read by an event three seconds ago."""
    return {
        "uuid": f"uuid-of-{name}",
        "name": name,
        "state": 1 if counts else 5,
        "vcpus": 2,
        "memory_kib": 131_072,
        "cost": cost(2, 131_072, 1) if counts else cost(),
        "rule": "counted: active" if counts else "not counted: shut off",
        "read_seconds_ago": 3.2,
        "cause": "event",
        "detail": "lifecycle started",
        "unreadable": None,
        **values,
    }


def account(*domains: dict[str, Any], **values: Any) -> Account:
    """A daemon's account of a host with these domains."""
    usage = [sum(one["cost"][field] for one in domains) for field in cost()]
    explanation = {
        "usage": dict(zip(cost(), usage, strict=True)),
        "reserved": cost(),
        "domains": list(domains),
        "incomplete": None,
    }
    return Account(
        **{
            "host": "qemu:///system",
            "name": "node1",
            "uri": "qemu:///system",
            "settings": MonitorSettings(policy=Policy()),
            "service_id": None,
            "pid": 4711,
            "row_id": 1,
            "row": ROW,
            "stale_seconds": None,
            "generation": 1,
            "explanation": explanation,
            **values,
        }
    )
