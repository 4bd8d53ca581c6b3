"""What the command knows of this machine: ports, the home's lock, processes, the state file."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from weirctl import home_lock, processes, state_file, taken_ports
from weirctl.taken_ports import WantedPort


def test_a_taken_port_names_its_use_its_holder_and_the_key() -> None:
    """Everything that is needed to end the conflict is in one line."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (fault,) = taken_ports.faults([WantedPort("127.0.0.1", port, "the edge", "ports.edge")])
    assert fault.startswith(f"port {port} for the edge is taken by ")
    assert f"(process {os.getpid()})" in fault
    assert "ports.edge" in fault


def test_who_holds_a_port() -> None:
    """Its process while somebody listens; nobody afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert taken_ports.is_listening(port)
        assert taken_ports.holder(port) == os.getpid()
    assert not taken_ports.is_listening(port)
    assert taken_ports.holder(port) is None


def test_a_holder_s_arguments_are_not_shown() -> None:
    """They may hold secrets; the module that Python runs is shown."""
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    with subprocess.Popen(  # noqa: S603 - a script of this test
        [sys.executable, "-c", script, "--token=secret"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        owner = taken_ports.owner(port)
        holder.kill()
    assert f"(process {holder.pid})" in owner
    assert "secret" not in owner


def test_a_free_port_is_no_fault_and_one_wanted_twice_is() -> None:
    """Two parts of one configuration may not share a port either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    one = WantedPort("127.0.0.1", port, "auth", "ports.auth")
    assert taken_ports.faults([one]) == []
    (fault,) = taken_ports.faults([one, WantedPort("127.0.0.1", port, "ledger", "ports.ledger")])
    assert "wanted twice" in fault
    assert "ports.auth" in fault
    assert "ports.ledger" in fault


def test_an_address_of_another_machine_is_a_fault_of_its_own() -> None:
    """It is not taken; it cannot be listened on."""
    (fault,) = taken_ports.faults([WantedPort("192.0.2.1", 8080, "the edge", "ports.edge")])
    assert "cannot listen on 192.0.2.1:8080" in fault


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """The second is told who the first is; afterwards nothing of the lock is left."""
    with home_lock.hold(tmp_path):
        assert home_lock.holder(tmp_path) == os.getpid()
        with pytest.raises(home_lock.HomeLocked) as caught, home_lock.hold(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
    assert list(tmp_path.iterdir()) == []
    assert home_lock.holder(tmp_path) is None


def test_a_dead_holder_s_file_locks_nothing(tmp_path: Path) -> None:
    """What a killed process leaves is neither a holder nor in the way."""
    (tmp_path / "lock").write_text("1\n")
    assert home_lock.holder(tmp_path) is None
    with home_lock.hold(tmp_path):
        assert home_lock.holder(tmp_path) == os.getpid()


def test_the_state_file_round_trips_and_rubbish_is_no_state(tmp_path: Path) -> None:
    """Other commands read what was written, or nothing."""
    part = state_file.PartState("auth", "healthy", 7, 1, 1.5, "127.0.0.1:1", "sandbox")
    state = state_file.MeshState(3, "http://127.0.0.1:8080", [part])
    state_file.write(tmp_path, state)
    assert state_file.read(tmp_path) == state
    (tmp_path / "state.json").write_text("{")
    assert state_file.read(tmp_path) is None
    state_file.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_memory_counts_descendants() -> None:
    """A parent's number includes its child's."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(  # noqa: S603 - a script of this test
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        both = processes.memory_bytes(parent.pid)
        alone = processes._pss_bytes(parent.pid)
        assert both is not None
        assert alone is not None
        assert both > alone
        assert processes.alive(parent.pid)
        family = processes.family(parent.pid)
        assert family[0] == parent.pid
        assert len(family) == 2
        assert parent.stdin is not None
        parent.stdin.close()
        parent.wait()
    assert not processes.alive(parent.pid)
