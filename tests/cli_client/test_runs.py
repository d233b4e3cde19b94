"""`guardhouse fanout` and `guardhouse exec --at`, as an operator types them."""

import json
from contextlib import AsyncExitStack

import trio
from tests.support.runner_stub import connect_v1


async def test_fanout_prints_what_became_of_each(hub, cli):
    """A table of outcomes; the exit status says whether it succeeded everywhere."""
    async with AsyncExitStack() as stack:
        runners = []
        for number in (0, 1):
            created = await hub.environment(f"host-{number}", tags=["fleet"])
            runners.append(await stack.enter_async_context(connect_v1(hub.url, created["token"])))
            await hub.until_online(f"host-{number}")
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(runners[0].serve)
        nursery.start_soon(lambda: runners[1].serve(exit_code=4))
        ran = await cli.run("fanout", "run", "--tags", "fleet", "--parallel", "2", "--", "ls", "-l", "my file")
        assert ran.returncode == 1, ran.stderr
        lines = [line.split() for line in ran.stdout.decode().splitlines()]
        assert lines[0] == ["ENVIRONMENT", "OUTCOME", "EXIT", "TASK", "ERROR"]
        assert [line[:3] for line in lines[1:]] == [["host-0", "succeeded", "0"], ["host-1", "failed", "4"]]
        assert b"1 succeeded, 1 failed" in ran.stderr
        good = await cli.run("fanout", "run", "--env", "host-0", "--json", "--", "true")
        assert good.returncode == 0, good.stderr
        assert json.loads(good.stdout)["children"][0]["state"] == "succeeded"
        listed = json.loads((await cli.run("fanout", "list", "--json")).stdout)["fanouts"]
        assert [one["command"] for one in listed] == ["true", "ls -l 'my file'"]
        assert (await cli.run("fanout", "show", "fan_none")).returncode == 3
        assert (await cli.run("fanout", "run", "--tags", "none", "--", "true")).returncode == 5
        nursery.cancel_scope.cancel()


async def test_exec_at_a_later_time(hub, cli):
    """`exec --at` prints a schedule, which can be listed and cancelled; a time without a zone is refused."""
    await hub.environment()
    made = await cli.run("exec", "web-1", "--at", "+2h", "--", "true")
    assert made.returncode == 0, made.stderr
    schedule = made.stdout.decode().strip()
    assert (await cli.run("schedule", "cancel", schedule)).stdout.decode().split() == [schedule, "cancelled"]
    listed = json.loads((await cli.run("schedule", "list", "--json")).stdout)["schedules"]
    assert [(one["id"], one["state"]) for one in listed] == [(schedule, "cancelled")]
    assert (await cli.run("exec", "web-1", "--at", "2099-01-01T00:00:00", "--", "true")).returncode == 2
