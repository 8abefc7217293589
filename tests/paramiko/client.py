"""Logs in with paramiko through an agent of Epithet's, and says how it went, one JSON line a step.

paramiko does not read ssh's `Match exec`, so this program asks the broker itself, as ssh would. It never sends
session-bind@openssh.com.
"""

import argparse
import json
import os
import subprocess

import paramiko
from paramiko.agent import AgentRequestHandler


def arguments():
    parser = argparse.ArgumentParser()
    for name in ["match", "broker", "host", "user", "hash", "known-hosts", "elsewhere"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--port", type=int, required=True)
    return parser.parse_args()


def ask(options):
    """Asks the broker for the connection, as ssh does by running the same program."""
    question = ["--host", options.host, "--port", str(options.port), "--user", options.user]
    question += ["--hash", options.hash, "--broker", options.broker]
    subprocess.run([options.match, *question], check=True)


def log_in(options, command, forward=False):
    """A whole login with a connection of its own. Returns what the command printed, or why there was no login."""
    with paramiko.SSHClient() as client:
        client.load_host_keys(options.known_hosts)
        try:
            client.connect(
                options.host, options.port, options.user, allow_agent=True, look_for_keys=False, timeout=20, banner_timeout=20
            )
        except paramiko.SSHException as error:
            return {"refused": str(error)}
        session = client.get_transport().open_session(timeout=20)
        if forward:
            AgentRequestHandler(session)
        session.settimeout(20)
        session.set_combine_stderr(True)
        session.exec_command(command)
        said = session.makefile().read().decode()
        return {"status": session.recv_exit_status(), "said": said}


def main():
    options = arguments()
    os.environ["SSH_AUTH_SOCK"] = os.path.join(os.path.dirname(options.broker), "agent", options.hash)

    def step(name, result):
        print(json.dumps({"step": name, **result}), flush=True)

    ask(options)
    step("asked", log_in(options, "echo logged in"))
    step("not asked again", log_in(options, "echo logged in"))
    ask(options)
    step("asked again", log_in(options, "echo logged in"))
    ask(options)
    # The remote host's own ssh is a newer one: it binds the connection that it was given to its own login.
    onward = f"ssh-add -L; echo list $?; {options.elsewhere}; echo login $?"
    step("forwarded", log_in(options, onward, forward=True))


main()
