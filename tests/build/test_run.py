"""RUN: what a command sees, what it may do, and what of it ends up in the image."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from program import Program

BASE = "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base\n"


def run(program: Program, *lines: str, options: tuple[str, ...] = (), node: str = "1.1") -> list[str]:
    """The output of a step of a stage on busybox."""
    return program.build(program.project(BASE + "\n".join(lines) + "\n"), *options).ok().output(node)


def test_shell_exec_and_heredoc_forms(program: Program) -> None:
    built = program.build(
        program.project(
            BASE
            + "RUN echo $((1 + 1))\n"
            + 'RUN ["echo", "$HOME", "two words"]\n'
            + "RUN <<EOF\nset -e\necho first\necho second\nEOF\n"
            + "RUN <<EOF\n#!/bin/cat\nwhole text\nEOF\n"
            + "RUN cat <<A && cat <<'B'\nx=$HOME\nA\ny=$HOME\nB\n"
            + 'SHELL ["/bin/sh", "-ec"]\nRUN false; echo not reached\n'
        )
    ).failed(1)
    assert built.output("1.1") == ["2"]
    assert built.output("1.2") == ["$HOME two words"]
    assert built.output("1.3") == ["first", "second"]
    assert built.output("1.4") == ["#!/bin/cat", "whole text"]
    assert built.output("1.5") == ["x=/root", "y=$HOME"]
    assert built.output("1.7") == []


def test_variables_of_arg_and_env(program: Program) -> None:
    lines = run(
        program,
        "ARG A=default",
        "ARG B",
        "ENV C=$A-c A2=${A:+yes}",
        "RUN echo $A $B $C $A2; env | sort",
        options=("--build-arg", "B=given"),
        node="1.4",
    )
    assert lines[0] == "default given default-c yes"
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines


def test_user_names_numbers_and_groups(program: Program) -> None:
    lines = "RUN id\nUSER app\nRUN id; echo $HOME\nUSER app:extra\nRUN id\nUSER 77\nRUN id\n"
    built = program.build(program.project(BASE + lines)).ok()
    assert built.output("1.1") == ["uid=0(root) gid=0(root) groups=0(root)"]
    assert built.output("1.3") == ["uid=1000(app) gid=1001(app) groups=1001(app),2000(extra)", "/home/app"]
    assert built.output("1.5") == ["uid=1000(app) gid=2000(extra) groups=2000(extra)"]
    assert built.output("1.7")[0].startswith("uid=77 gid=0(root)")


def test_an_unknown_user_is_an_error_with_the_line(program: Program) -> None:
    project = program.project(BASE + "USER nobody-here\nRUN id\n")
    failed = program.build(project).failed(3)
    assert "no user 'nobody-here'" in failed.stderr
    assert "Dockerfile:5" in failed.stderr


def test_a_missing_working_directory_is_made(program: Program) -> None:
    assert run(program, "WORKDIR /a/b", "WORKDIR c", "RUN pwd", node="1.3") == ["/a/b/c"]


def test_the_sandbox_is_closed(each_way: Program) -> None:
    """Capabilities, system calls, masked and read-only paths as docker has them; own namespaces; no input."""
    script = r"""
grep -E '^(CapEff|Seccomp):' /proc/self/status
hostname
echo pids $(ls /proc | grep -c '^[0-9]')
mount -t tmpfs none /tmp 2>&1 | grep -c -i 'denied\|permitted'
cat /proc/timer_list | wc -c
echo x 2>/dev/null > /proc/sys/kernel/hostname || echo read-only
cat
ls /dev | tr '\n' ' '
"""
    lines = run(each_way, "RUN <<EOF" + script + "EOF")
    assert lines[0] == "CapEff:\t00000000a80405fb", "docker's, without NET_RAW on the host's network"
    assert lines[1] == "Seccomp:\t2"
    assert lines[2] == "buildkitsandbox"
    assert int(lines[3].split()[1]) < 10
    assert lines[4] == "1", "mount is refused"
    assert lines[5] == "0", "timer_list is masked"
    assert lines[6] == "read-only"
    assert "null" in lines[7]
    assert "sda" not in lines[7]
    assert "vda" not in lines[7]


def test_no_network_with_network_none(program: Program) -> None:
    built = program.build(program.project(BASE + "RUN --network=none ip -o link | wc -l\nRUN ip -o link | wc -l\n")).ok()
    assert built.output("1.1") == ["1"], "only loopback"
    option = program.build(program.project(BASE + "RUN ip -o link | wc -l; :\n", name="other"), "--network", "none").ok()
    assert option.output("1.1") == ["1"]


def test_the_machines_files_are_seen_and_never_kept(each_way: Program) -> None:
    lines = "RUN echo more >> /etc/hosts; cat /etc/hosts; cat /etc/hostname\nRUN find /etc /proc /sys /dev -maxdepth 1 | sort\n"
    built = each_way.build(each_way.project(BASE + lines), "--add-host", "db:10.1.2.3").ok()
    assert "10.1.2.3\tdb" in built.output("1.1")
    assert built.output("1.1")[-1] == "buildkitsandbox"
    files = {path.relative_to(each_way.root / "out") for path in extract(each_way).rglob("*")}
    assert Path("etc/hosts") not in files
    assert Path("etc/resolv.conf") not in files
    assert not any(path.parts[0] in ("proc", "sys", "dev") for path in files)


def extract(program: Program) -> Path:
    target = program.root / "out"
    program.build(program.root / "project", "-o", f"type=local,dest={target}").ok()
    return target


def test_all_kinds_of_changes_are_kept(each_way: Program) -> None:
    lines = BASE + (
        "RUN mkdir -p /d/gone /d/kept && echo 1 > /d/gone/f && echo 1 > /d/kept/f && echo x > /plain && ln -s plain /link"
        " && mkfifo /pipe && ln /plain /hard && chmod 4755 /plain && chown 12:34 /d/kept && mkdir /opaque && touch /opaque/a\n"
        "RUN rm -r /d/gone && echo 2 >> /d/kept/f && rm -r /opaque && mkdir /opaque && touch /opaque/b && rm /bin/nc\n"
        "RUN ls -ln /d/kept /plain /hard /pipe /link; ls -d /d/* /opaque/* /bin/nc; cat /d/kept/f; stat -c '%a %h' /hard\n"
    )
    output = each_way.build(each_way.project(lines)).ok().output("1.3")
    text = "\n".join(output)
    assert "/d/gone" not in text
    assert "/opaque/b" in output
    assert "/opaque/a" not in text
    assert output[-3:] == ["1", "2", "4755 2"]
    assert any("No such file" in line and "/bin/nc" in line for line in output)


def test_the_same_change_twice_in_one_stack(each_way: Program) -> None:
    """Both steps make one and the same layer, which overlayfs refuses to stack twice."""
    text = (
        "FROM busybox AS twice\nRUN echo 1 > /a; mkdir /d; echo 2 > /d/b\nRUN rm -r /a /d; mkdir /d; echo 3 > /d/c\n"
        "RUN rm -r /d; echo 1 > /a; mkdir /d; echo 2 > /d/b\nRUN cat /a /d/b > /seen; test ! -e /d/c\n"
        "FROM busybox\nRUN --mount=from=twice,target=/t cat /t/a /t/d/b /t/seen > /all\n"
        "COPY x /x\nRUN rm /x\nCOPY x /x\nRUN rm /x\nRUN test ! -e /x\nCOPY x /x\nRUN cat /x >> /all\n"
    )
    context = each_way.project(text, {"x": "x"})
    assert (each_way.files(context) / "all").read_text().split() == ["1", "2", "1", "2", "x"]


def test_bind_mounts_from_context_stage_and_image(each_way: Program) -> None:
    dockerfile = (
        "FROM scratch AS base\nCOPY --from=busybox / /\n"
        "FROM base AS other\nRUN mkdir /data && echo from-stage > /data/f\n"
        "FROM base\n"
        "RUN --mount=type=bind,source=src,target=/in cat /in/a; touch /in/new 2>&1 | grep -c -i read-only\n"
        "RUN --mount=from=other,source=/data,target=/stage --mount=target=/one,source=src/a cat /stage/f /one\n"
        "RUN --mount=target=/in,source=src,rw touch /in/new && ls /in\n"
        "RUN ls -d /in /stage /one 2>&1 | grep -c 'No such'\n"
    )
    built = each_way.build(each_way.project(dockerfile, {"src/a": "from-context\n", "secret.txt": "no"})).ok()
    assert built.output("2.1") == ["from-context", "1"]
    assert built.output("2.2") == ["from-stage", "from-context"]
    assert built.output("2.3") == ["a", "new"]
    assert built.output("2.4") == ["3"], "mount points leave nothing behind"


def test_a_bind_mount_counts_only_the_files_that_it_shows(program: Program) -> None:
    dockerfile = BASE + "RUN --mount=source=src,target=/in cat /in/a > /a\n"
    project = program.project(dockerfile, {"src/a": "1", "other": "1"})
    program.build(project).ok()
    (project / "other").write_text("2")
    assert program.build(project).ok().executed == []
    (project / "src/a").write_text("2")
    assert program.build(project).ok().executed == ["1.1"]


def test_cache_mounts_last_and_stay_out_of_image_and_key(each_way: Program) -> None:
    dockerfile = BASE + "ARG N\nRUN --mount=type=cache,target=/var/cache/x,mode=0700 echo $N >> /var/cache/x/log; cat /var/cache/x/log\n"
    project = each_way.project(dockerfile)
    assert each_way.build(project, "--build-arg", "N=1").ok().output("1.2") == ["1"]
    assert each_way.build(project, "--build-arg", "N=2").ok().output("1.2") == ["1", "2"]
    assert each_way.build(project, "--build-arg", "N=1").ok().executed == []
    (project / "Dockerfile").write_text(dockerfile + "RUN ls /var/cache/x 2>&1 || true\n")
    assert "No such file" in each_way.build(project, "--build-arg", "N=2").ok().output("1.3")[0]


def test_a_locked_cache_mount_is_used_by_one_step_at_a_time(program: Program) -> None:
    step = "RUN --mount=type=cache,target=/c,sharing=locked,id=one mkdir /c/taken && sleep 0.3 && rmdir /c/taken\n"
    stages = "".join(f"FROM base AS s{n}\nENV N={n}\n{step}" for n in range(3))
    last = "FROM base\n" + "".join(f"COPY --from=s{n} /etc/passwd /{n}\n" for n in range(3))
    program.build(program.project("FROM scratch AS base\nCOPY --from=busybox / /\n" + stages + last)).ok()


def test_tmpfs_mounts(program: Program) -> None:
    assert run(program, "RUN --mount=type=tmpfs,target=/t,size=1m grep ' /t ' /proc/mounts | cut -d' ' -f3; touch /t/x") == [
        "tmpfs"
    ]


def test_secrets_are_seen_by_the_step_and_nowhere_else(each_way: Program) -> None:
    """I4."""
    secret = "s3cr3t-value-of-the-test"
    (each_way.root / "token").write_text(secret + "\n")
    dockerfile = BASE + (
        "RUN --mount=type=secret,id=token cat /run/secrets/token; stat -c '%a %u' /run/secrets/token\n"
        "RUN --mount=type=secret,id=token,env=TOKEN,required=true echo ${#TOKEN}; env > /dev/null\n"
        "RUN --mount=type=secret,id=absent ls /run/secrets 2>&1 || true\n"
    )
    project = each_way.project(dockerfile)
    built = each_way.build(project, "--secret", f"id=token,src={each_way.root / 'token'}").ok()
    assert built.output("1.1") == ["[secret]", "400 0"]
    assert built.output("1.2") == [str(len(secret) + 1)]
    assert "No such file" in built.output("1.3")[0]
    found = [
        str(path)
        for path in each_way.store.rglob("*")
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
    ]
    assert found == []
    (each_way.root / "token").write_text("another\n")
    again = each_way.build(project, "--secret", f"id=token,src={each_way.root / 'token'}").ok()
    assert again.executed == [], "a secret's value is in no key"


def test_a_required_secret_that_is_missing_is_an_error(program: Program) -> None:
    project = program.project(BASE + "RUN --mount=type=secret,id=token,required=true true\n")
    failed = program.build(project).failed(4)
    assert "the secret 'token' is required" in failed.stderr
    assert "--secret id=token" in failed.stderr


def test_a_failing_command_shows_code_output_and_line_and_stops_the_others(program: Program) -> None:
    dockerfile = (
        "FROM scratch AS base\nCOPY --from=busybox / /\n"
        "FROM base AS slow\nRUN sleep 60\n"
        "FROM base AS bad\nRUN sleep 0.5; echo about to fail; exit 7\n"
        "FROM base\nCOPY --from=slow / /\nCOPY --from=bad / /\n"
    )
    started = time.monotonic()
    failed = program.build(program.project(dockerfile)).failed(1)
    assert time.monotonic() - started < 20
    assert "exit code 7" in failed.stderr
    assert "about to fail" in failed.stderr
    assert "Dockerfile:6" in failed.stderr
    assert "6 | RUN sleep 0.5" in failed.stderr
    statuses = {event["id"]: event["status"] for event in failed.events if event["event"] == "finished"}
    assert statuses["bad.1"] == "failed"
    assert statuses["slow.1"] == "cancelled"


def test_a_command_that_is_not_there(program: Program) -> None:
    failed = program.build(program.project(BASE + 'RUN ["/no/such/program"]\n')).failed(1)
    assert "/no/such/program" in failed.stderr


def test_independent_stages_run_at_the_same_time(program: Program) -> None:
    """Each waits for all the others, a minute at most."""
    meet = "touch /c/$N; i=0; until [ $(ls /c | wc -l) = 6 ]; do [ $((i+=1)) -le 600 ] || exit 1; sleep 0.1; done"
    step = f"RUN --mount=type=cache,target=/c {meet}; echo $N > /$N\n"
    stages = "".join(f"FROM base AS s{n}\nENV N={n}\n{step}" for n in range(6))
    last = "FROM base\n" + "".join(f"COPY --from=s{n} /{n} /{n}\n" for n in range(6))
    project = program.project("FROM scratch AS base\nCOPY --from=busybox / /\n" + stages + last)
    program.build(project).ok()


def test_large_output_is_kept_whole(program: Program) -> None:
    lines = run(program, "RUN seq 1 150000")
    assert len(lines) == 150_000
    assert lines[-1] == "150000"




def test_a_step_that_nobody_waits_for_ends_with_the_build(program: Program) -> None:
    built = program.build(program.project(BASE + "RUN sleep 1000 & echo started\n")).ok()
    assert built.output("1.1") == ["started"]


def test_an_ssh_agent_is_forwarded(each_way: Program, tmp_path: Path) -> None:
    import subprocess

    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            time.sleep(0.01)
        ask = "RUN --mount=type=ssh{} echo $SSH_AUTH_SOCK; stat -c '%a %u %F' $SSH_AUTH_SOCK"
        project = each_way.project(BASE + ask.format("") + "\n" + ask.format(",id=other,mode=0666,uid=1000,target=/s") + "\nRUN ls /s /run/buildkit 2>&1 | wc -l\n")
        built = each_way.build(project, "--ssh", f"default={agent}", "--ssh", f"other={key}").ok()
        assert built.output("1.1") == ["/run/buildkit/ssh_agent.0", "600 0 socket"]
        assert built.output("1.2") == ["/s", "666 1000 socket"]
        assert built.output("1.3") == ["2"], "nothing is left of the sockets"
    finally:
        process.terminate()
        process.wait()
    failed = each_way.build(each_way.project(BASE + "RUN --mount=type=ssh,required=true true\n", name="needs")).failed(4)
    assert "ssh agent 'default' is required" in failed.stderr


def test_a_cache_mount_may_start_with_files(each_way: Program) -> None:
    dockerfile = (
        "FROM scratch AS base\nCOPY --from=busybox / /\nFROM base AS seed\nRUN mkdir -p /s/d && echo seeded > /s/d/f\nFROM base\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/d/f && echo more >> /c/d/f\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/d/f\n"
    )
    built = each_way.build(each_way.project(dockerfile)).ok()
    assert built.output("2.1") == ["seeded"]
    assert built.output("2.2") == ["seeded", "more"]


def test_insecure_must_be_allowed(program: Program) -> None:
    project = program.project(BASE + "RUN --security=insecure grep CapEff /proc/self/status; mkdir /m && mount -t tmpfs none /m && echo mounted\n")
    failed = program.build(project).failed(3)
    assert "--allow security.insecure" in failed.stderr
    built = program.build(project, "--allow", "security.insecure").ok()
    assert built.output("1.1")[-1] == "mounted"


def test_secret_arguments_are_not_in_the_history(program: Program) -> None:
    """I4."""
    project = program.project(BASE + "ARG API_TOKEN\nARG VERSION\nRUN echo $VERSION ${#API_TOKEN}\n")
    program.build(project, "-t", "h:1", "--build-arg", "API_TOKEN=verysecret", "--build-arg", "VERSION=7").ok()
    texts = [line["created_by"] for line in program.config("h:1")["history"]]
    assert texts[-1] == "RUN |2 API_TOKEN VERSION=7 /bin/sh -c echo $VERSION ${#API_TOKEN} # buildkit"
    assert not any("verysecret" in text for text in texts)


def test_runc_in_place_of_crun(tmp_path: Path, busybox: Path) -> None:
    from program import Program

    program = Program(tmp_path, busybox, {"BUILDGRAPH_RUNTIME": "runc"})
    lines = "RUN grep -E '^(CapEff|Seccomp):' /proc/self/status; hostname; echo kept > /kept\nRUN cat /kept; exit 4\n"
    failed = program.build(program.project(BASE + lines)).failed(1)
    assert failed.output("1.1") == ["CapEff:\t00000000a80405fb", "Seccomp:\t2", "buildkitsandbox"]
    assert failed.output("1.2") == ["kept"]
    assert "exit code 4" in failed.stderr
